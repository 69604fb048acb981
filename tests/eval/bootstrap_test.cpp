#include "engine/eval/bootstrap.h"

#include <gtest/gtest.h>

namespace depthstill {
namespace {

std::vector<ImageMetrics> images_of(const std::vector<double>& abs_rel) {
  std::vector<ImageMetrics> images(1);  // one that was left out
  for (const double value : abs_rel) {
    Metrics metrics;
    metrics.abs_rel = value;
    images.push_back({"", 1, metrics});
  }
  return images;
}

// Indices and quantiles as a program in Python finds them from the definition in the header.
TEST(Bootstrap, DrawsAreThoseOfTheDefinition) {
  EXPECT_EQ(bootstrap_index(7, 0, 0, 1000), 393);
  EXPECT_EQ(bootstrap_index(7, 0, 1, 1000), 465);
  EXPECT_EQ(bootstrap_index(7, 1, 0, 1000), 196);
  EXPECT_EQ(bootstrap_index(7, 199, 2, 1000), 244);
  const std::vector<Interval> found = bootstrap(images_of({1, 2, 4}), kMetricFields, {40, 3});
  ASSERT_EQ(found.size(), kMetricFields.size());
  EXPECT_NEAR(found[0].low, 1.325, 1e-12);
  EXPECT_NEAR(found[0].high, 3.35, 1e-12);
}

TEST(Bootstrap, OneImageHasNoSpread) {
  const std::vector<Interval> found = bootstrap(images_of({0.5}), kMetricFields, {100, 0});
  EXPECT_EQ(found[0].low, 0.5);
  EXPECT_EQ(found[0].high, 0.5);
}

TEST(Bootstrap, NothingAskedForOrNothingScoredGivesNothing) {
  EXPECT_TRUE(bootstrap(images_of({1, 2}), kMetricFields, {0, 0}).empty());
  EXPECT_TRUE(bootstrap(images_of({}), kMetricFields, {10, 0}).empty());
}

}  // namespace
}  // namespace depthstill
