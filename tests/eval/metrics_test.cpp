#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "engine/eval/metrics_csv.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

struct Case {
  std::vector<float> prediction, truth;
  std::vector<uint8_t> valid;
};

// Depths and predictions that any language can repeat: additive recurrences of irrational numbers.
Case recurrence_case(int n) {
  Case c;
  double whole = 0;
  for (int i = 0; i < n; ++i) {
    const float g = static_cast<float>(0.5 + 79 * std::modf(i * 0.6180339887498949, &whole));
    const double f = std::modf(i * 0.7548776662466927, &whole);
    c.truth.push_back(g);
    c.prediction.push_back(static_cast<float>(static_cast<double>(g) * (0.35 + 1.5 * f)));
    c.valid.push_back(i % 3 != 1);
  }
  return c;
}

TEST(Metrics, EqualNumpy) {
  // The same arrays through the formulas of engine/eval/metrics.h in NumPy 2.4.6 (float64), 667 valid of 1000 pixels.
  const Metrics expected{0.38179244348006397, 7.849741986585575,   20.432757060167816,
                         0.4507983373214556,  0.16560049283904382, 45.079599369934236,
                         0.3028485757121439,  0.6146926536731634,  0.8905547226386806};
  const Case c = recurrence_case(1000);
  const std::optional<Metrics> found = compute_metrics(c.prediction, c.truth, c.valid);
  ASSERT_TRUE(found.has_value());
  for (const MetricField& field : kMetricFields) {
    EXPECT_NEAR(*found.*field.value, expected.*field.value, 1e-9 * expected.*field.value) << field.name;
  }
}

TEST(Metrics, ThresholdIsStrict) {
  const std::vector<float> truth = {4, 4, 4}, prediction = {5, 4.999f, 3.2f};  // ratios 1.25, below, 1.25 (rounded)
  const std::vector<uint8_t> valid = {1, 1, 0};
  EXPECT_DOUBLE_EQ(compute_metrics(prediction, truth, valid)->d1, 0.5);
}

TEST(Metrics, PerfectPrediction) {
  const std::vector<float> truth = {1, 2, 3};
  const std::vector<uint8_t> valid = {1, 1, 1};
  const Metrics m = *compute_metrics(truth, truth, valid);
  EXPECT_EQ(m.abs_rel, 0);
  EXPECT_EQ(m.silog, 0);
  EXPECT_EQ(m.d1, 1);
}

TEST(Metrics, ImagesWithoutValidPixelAreCountedNotAveraged) {
  const std::vector<float> one = {2}, truth = {4};
  const std::vector<uint8_t> none = {0}, all = {1};
  const std::vector<ImageMetrics> images = {{"a", 1, compute_metrics(one, truth, all)},
                                            {"b, \"c\"", 0, compute_metrics(one, truth, none)},
                                            {"d", 1, compute_metrics(truth, truth, all)}};
  EXPECT_FALSE(images[1].metrics.has_value());
  const MetricsSummary summary = summarize(images);
  EXPECT_EQ(summary.images, 2);
  EXPECT_EQ(summary.skipped, 1);
  EXPECT_DOUBLE_EQ(summary.mean.abs_rel, 0.25);

  const std::string path = testing::TempDir() + "metrics.csv";
  write_metrics_csv(path, images);
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(),
            "image,pixels,abs_rel,sq_rel,rmse,rmse_log,log10,silog,d1,d2,d3\n"
            "a,1,0.5,1,2,0.693147181,0.301029996,0,0,0,0\n"
            "\"b, \"\"c\"\"\",0,,,,,,,,,\n"
            "d,1,0,0,0,0,0,0,1,1,1\n");
}

TEST(Metrics, NothingValidAtAllGivesNan) {
  const std::vector<ImageMetrics> images = {{"a", 0, std::nullopt}};
  EXPECT_TRUE(std::isnan(summarize(images).mean.abs_rel));
}

TEST(Metrics, ValuesStandBelowTheirNames) {
  Metrics metrics;
  metrics.sq_rel = 5;
  metrics.d1 = 0.25;
  metrics.i_rmse = 3;
  const MetricField two[] = {metric_field("abs_rel"), metric_field("d1")};
  EXPECT_EQ(format_metrics(metrics, two), "   abs_rel        d1\n    0.0000    0.2500\n");
  const std::string all = format_metrics(metrics, kEvalFields);
  EXPECT_EQ(all.substr(all.size() - 11), "    3.0000\n");
}

TEST(Metrics, UnknownNameListsTheKnownOnes) {
  EXPECT_STREQ(metric_field("rmse").name, "rmse");
  try {
    metric_field("absrel");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("abs_rel"), std::string::npos);
  }
}

}  // namespace
}  // namespace depthstill
