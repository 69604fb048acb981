#include "engine/data/cubic.h"

#include <gtest/gtest.h>

namespace depthstill {
namespace {

uint8_t value_at(int y, int x) { return static_cast<uint8_t>((7 * y * y + 13 * x + 29 * x * y) % 256); }

// Every fifth element of what PyTorch 2.15 gives for F.interpolate(mode="bicubic", align_corners=False) in float64,
// which has the same A, pixel centres and edges as OpenCV's INTER_CUBIC.
TEST(Cubic, IsTheReferences) {
  constexpr int kHeight = 5, kWidth = 6;
  Image8 image{kWidth, kHeight, {}};
  DepthMap depth{kWidth, kHeight, {}};
  for (int y = 0; y < kHeight; ++y) {
    for (int x = 0; x < kWidth; ++x) {
      image.rgb.insert(image.rgb.end(), {7, value_at(y, x), 200});
      depth.values.push_back(value_at(y, x));
    }
  }
  const struct {
    ImageSize size;
    std::vector<double> every_fifth;
  } cases[] = {{{9, 7},
                {-1.4813, 33.883, 12.7371, 126.2917, 75.9153, 179.272, 154.8796, 133.1632, 74.0773, 77.2433, 166.0459,
                 193.1908, 118.762}},
               {{4, 3}, {4.9644, 148.9219, 195.6204}}};
  for (const auto& c : cases) {
    const std::vector<float> rgb = resize_cubic(image, c.size);
    const DepthMap resized = resize_cubic(depth, c.size);
    ASSERT_EQ(resized.size(), c.size);
    ASSERT_EQ(rgb.size(), 3 * resized.values.size());
    for (size_t i = 0; i < c.every_fifth.size(); ++i) {
      EXPECT_NEAR(resized.values[5 * i], c.every_fifth[i], 2e-4);
      EXPECT_NEAR(rgb[15 * i + 1], c.every_fifth[i], 2e-4);
      EXPECT_NEAR(rgb[15 * i], 7, 1e-4);
      EXPECT_NEAR(rgb[15 * i + 2], 200, 1e-3);
    }
  }
}

}  // namespace
}  // namespace depthstill
