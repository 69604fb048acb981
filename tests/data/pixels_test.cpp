#include "engine/data/pixels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/io/test_files.h"

namespace depthstill {
namespace {

Image8 picture(int width, int height) {
  Image8 image{width, height, {}};
  for (int i = 0; i < width * height * 3; ++i) image.rgb.push_back(static_cast<uint8_t>((i * 37 + i / 5) % 256));
  return image;
}

DepthMap depth_of(int width, int height) {
  DepthMap depth{width, height, {}};
  for (int i = 0; i < width * height; ++i) depth.values.push_back(static_cast<float>(i));
  return depth;
}

TEST(pixels, crop) {
  const Rect rect{2, 1, 3, 2};
  const DepthMap part = crop(depth_of(7, 5), rect);
  EXPECT_EQ(part.values, (std::vector<float>{9, 10, 11, 16, 17, 18}));
  const Image8 image = picture(7, 5), cut = crop(image, rect);
  for (int y = 0; y < 2; ++y) {
    for (int x = 0; x < 9; ++x) {
      EXPECT_EQ(cut.rgb[static_cast<size_t>(y * 9 + x)], image.rgb[static_cast<size_t>((y + 1) * 21 + 6 + x)]);
    }
  }
  for (const Rect& bad : {Rect{-1, 0, 2, 2}, Rect{0, 4, 2, 2}, Rect{6, 0, 2, 2}, Rect{0, 0, 0, 2}}) {
    EXPECT_THROW(crop(image, bad), Error);
  }
}

// The weight of input pixel j in output pixel i, from the definition.
double weight(int i, int j, int from, int to) {
  const double step = static_cast<double>(from) / to;
  if (step > 1) return std::max(0.0, std::min(j + 1.0, (i + 1) * step) - std::max<double>(j, i * step)) / step;
  const double at = std::clamp((i + 0.5) * step - 0.5, 0.0, from - 1.0);
  return std::max(0.0, 1.0 - std::abs(at - j));
}

TEST(pixels, resize_image_against_the_definition) {
  const std::pair<ImageSize, ImageSize> cases[] = {{{7, 5}, {3, 2}}, {{7, 5}, {14, 10}}, {{8, 4}, {4, 2}},
                                                   {{1, 1}, {4, 3}}, {{13, 1}, {5, 6}},  {{9, 7}, {11, 3}},
                                                   {{5, 4}, {5, 4}}, {{6, 6}, {1, 1}}};
  for (const auto& [from, to] : cases) {
    const Image8 image = picture(from.width, from.height), out = resize(image, to);
    ASSERT_EQ(out.size(), to);
    for (int y = 0; y < to.height; ++y) {
      for (int x = 0; x < to.width * 3; ++x) {
        double expected = 0;
        for (int v = 0; v < from.height; ++v) {
          for (int u = 0; u < from.width; ++u) {
            expected += weight(y, v, from.height, to.height) * weight(x / 3, u, from.width, to.width) *
                        image.rgb[static_cast<size_t>((v * from.width + u) * 3 + x % 3)];
          }
        }
        EXPECT_NEAR(out.rgb[static_cast<size_t>(y * to.width * 3 + x)], expected, 0.5001) << from << " to " << to;
      }
    }
  }
}

TEST(pixels, resize_depth_takes_nearest) {
  const DepthMap depth = depth_of(4, 2);
  EXPECT_EQ(resize(depth, {2, 1}).values, (std::vector<float>{5, 7}));
  EXPECT_EQ(resize(depth, {8, 2}).values, (std::vector<float>{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7}));
  EXPECT_EQ(resize(depth, {4, 2}).values, depth.values);
  EXPECT_EQ(resize(depth_of(3, 1), {2, 1}).values, (std::vector<float>{0, 2}));
  EXPECT_THROW(resize(depth, {0, 2}), Error);
}

}  // namespace
}  // namespace depthstill
