#include "models/input_rule.h"

#include <gtest/gtest.h>

namespace depthstill {
namespace {

TEST(InputRule, SizesAreThePublishedOnes) {
  const InputRule depth_anything{InputRule::Fit::kLowerBound, 518, 14};
  const struct {
    ImageSize image, network;
  } cases[] = {{{640, 480}, {686, 518}},   {{1920, 1080}, {924, 518}}, {{1242, 375}, {1722, 518}},
               {{1216, 352}, {1792, 518}}, {{6048, 4032}, {770, 518}}, {{1024, 768}, {686, 518}},
               {{500, 333}, {784, 518}},   {{480, 640}, {518, 686}},   {{518, 518}, {518, 518}}};
  for (const auto& c : cases) EXPECT_EQ(fitted_size(c.image, depth_anything), c.network) << c.image;
  EXPECT_EQ(fitted_size({640, 480}, {InputRule::Fit::kUpperBound, 256, 32}), (ImageSize{256, 192}));
  EXPECT_EQ(fitted_size({4000, 20}, {InputRule::Fit::kUpperBound, 256, 32}), (ImageSize{256, 32}));
  EXPECT_EQ(fitted_size({17, 19}, {}), (ImageSize{17, 19}));
}

}  // namespace
}  // namespace depthstill
