#include "models/input_rule.h"

#include <gtest/gtest.h>

#include "models/model_table.h"

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

TEST(InputRule, DepthAnything3TakesTheNearestMultiples) {
  InputRule upper{InputRule::Fit::kUpperBound, 504, 14, InputRule::Way::kTwoSteps}, lower = upper;
  lower.fit = InputRule::Fit::kLowerBound;
  EXPECT_EQ(input_rule("da3mono_l").fit, upper.fit);
  EXPECT_EQ(input_rule("da3metric_s").size, 504);
  const struct {
    ImageSize image, upper, lower;
  } cases[] = {{{640, 480}, {504, 378}, {672, 504}},   {{1920, 1080}, {504, 280}, {896, 504}},
               {{1242, 375}, {504, 154}, {1666, 504}}, {{1216, 352}, {504, 140}, {1736, 504}},
               {{6048, 4032}, {504, 336}, {756, 504}}, {{1024, 768}, {504, 378}, {672, 504}},
               {{500, 333}, {504, 336}, {756, 504}},   {{480, 640}, {378, 504}, {504, 672}},
               {{504, 371}, {504, 378}, {686, 504}},   {{504, 497}, {504, 504}, {518, 504}}};
  for (const auto& c : cases) {
    EXPECT_EQ(fitted_size(c.image, upper), c.upper) << c.image;
    EXPECT_EQ(fitted_size(c.image, lower), c.lower) << c.image;
  }
  EXPECT_EQ(fitted_size({10000, 4}, upper), (ImageSize{504, 14}));
}

}  // namespace
}  // namespace depthstill
