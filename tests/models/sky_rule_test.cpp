#include "models/sky_rule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace depthstill {
namespace {

// Depths 1 .. n, the last `of_sky` of them sky.
struct Maps {
  std::vector<float> depth, sky;
  Maps(int n, int of_sky, float value = kSkyThreshold)
      : depth(static_cast<size_t>(n)), sky(static_cast<size_t>(n), 0.29f) {
    std::iota(depth.begin(), depth.end(), 1.0f);
    std::fill(sky.end() - of_sky, sky.end(), value);
  }
};

TEST(SkyRule, SkyIsAsFarAs99PercentOfTheRest) {
  Maps maps(111, 11);
  std::reverse(maps.depth.begin(), maps.depth.begin() + 100);
  fill_sky(maps.depth, maps.sky);
  for (size_t i = 0; i < 100; ++i) EXPECT_EQ(maps.depth[i], static_cast<float>(100 - i));
  for (size_t i = 100; i < 111; ++i) EXPECT_FLOAT_EQ(maps.depth[i], 99.01f);  // 1 + 0.99 * 99: between 99 and 100
}

TEST(SkyRule, FewPixelsDecideNothing) {
  for (const int of_sky : {0, 10, 90, 100}) {
    Maps maps(100, of_sky);
    const std::vector<float> before = maps.depth;
    fill_sky(maps.depth, maps.sky);
    EXPECT_EQ(maps.depth, before) << of_sky;
  }
  for (const int of_sky : {11, 89}) {
    Maps maps(100, of_sky);
    fill_sky(maps.depth, maps.sky);
    EXPECT_NE(maps.depth.back(), 100.0f) << of_sky;
  }
}

TEST(SkyRule, LabelsAreInverseAnd0InTheSky) {
  Maps maps(21, 10);
  to_sky_label(maps.depth, maps.sky);
  for (size_t i = 0; i < 21; ++i) EXPECT_EQ(maps.depth[i], i < 11 ? 1.0f / static_cast<float>(i + 1) : 0.0f);
  Maps unknown(21, 11);
  to_sky_label(unknown.depth, unknown.sky);
  EXPECT_TRUE(std::ranges::all_of(unknown.depth, [](float v) { return std::isnan(v); }));
  Maps infinite(30, 0);
  infinite.depth[3] = std::numeric_limits<float>::infinity();  // whose inverse, 0, would be the sky
  to_sky_label(infinite.depth, infinite.sky);
  EXPECT_TRUE(std::isnan(infinite.depth[3]));
  EXPECT_EQ(infinite.depth[4], 0.2f);
  EXPECT_EQ(label_kind(Head::kRelativeDepth), kRelativeInverseDepth);
  EXPECT_EQ(name_of(label_kind(Head::kCanonicalDepth)), "inverse depth up to scale");
  EXPECT_EQ(label_kind(Head::kRegression), kMetricDepth);
}

}  // namespace
}  // namespace depthstill
