#include "engine/eval/score.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/eval/fit_pixels.h"
#include "kernels/core/error.h"
#include "tests/eval/golden_map.h"

namespace depthstill {
namespace {

using namespace testing_eval;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
constexpr MapKind kDisparity{Quantity::kInverseDepth, Ambiguity::kScaleAndShift};
constexpr MapKind kScaled{Quantity::kDepth, Ambiguity::kScale};

Protocol protocol_of(const std::string& name, Alignment alignment, double max_depth = 10) {
  Protocol protocol = make_protocol("plain", name);
  protocol.alignment = alignment;
  if (std::isfinite(protocol.max_depth)) protocol.max_depth = max_depth;
  return protocol;
}

DepthMap row_map(std::vector<float> values, MapKind kind = kMetricDepth) {
  const int width = static_cast<int>(values.size());
  return {width, 1, std::move(values), kind};
}

std::string message_of(const Protocol& protocol, const DepthMap& truth, DepthMap prediction) {
  try {
    score(protocol, "p", truth, prediction);
  } catch (const Error& error) {
    return error.what();
  }
  return "scored";
}

// Found with NumPy in float64 on the same maps, by the formulas of Marigold and MoGe; disparity-l1 as the best of all
// lines through two of the fitted pixels, of which one is an optimum; log-ls by numpy.polyfit of the logarithms.
TEST(Score, MapsByFormulaGiveTheReferencesFigures) {
  const struct {
    const char* protocol;
    Alignment alignment;
    double scale, shift, abs_rel, d1, rmse, silog;  // rmse 0: the protocol defines neither it nor silog
  } cases[] = {
      {"marigold", Alignment::kDisparityLs, 0.020255945112, -0.069700161273, 0.141380201154, 0.859943977591,
       0.893264008995, 18.309714156717},
      {"marigold", Alignment::kDepthLs, 9.316954835888, -1.595276490871, 0.067329370765, 0.986928104575, 0.279832646282,
       8.077137056652},
      {"marigold", Alignment::kDisparityL1, 0.016354273640, -0.013440348380, 0.142095704874, 0.869281045752,
       0.852696201826, 17.843319516182},
      {"tie-kd", Alignment::kLogLs, 1.457685262302, 2.116149389952, 0.067107681947, 0.985994397759, 0.284404140987,
       8.039441968162},
      {"moge", Alignment::kDisparityLs, 0.010176034023, 0.106692382992, 0.159819737899, 0.737628384687, 0, 0},
      {"moge", Alignment::kScaleL1, 6.521787576736, 0, 0.096593435303, 0.943043884220, 0, 0},
      {"moge", Alignment::kDepthL1, 9.055049679262, -1.475656956057, 0.066964202780, 0.986928104575, 0, 0},
  };
  const GoldenMaps maps = golden_maps();
  for (const auto& c : cases) {
    const bool inverse = fits_inverse(c.alignment);
    DepthMap prediction{kGoldenWidth, kGoldenHeight, inverse ? maps.disparity : maps.relative_depth, kDisparity};
    if (!inverse) prediction.kind.quantity = Quantity::kDepth;
    if (row_of(c.alignment).ambiguity == Ambiguity::kScale) prediction.kind = kScaled;
    const ImageScore found =
        score(protocol_of(c.protocol, c.alignment), "p", {kGoldenWidth, kGoldenHeight, maps.truth}, prediction);
    const Metrics& metrics = *found.metrics.metrics;
    SCOPED_TRACE(concat_text(c.protocol, ' ', row_of(c.alignment).name));
    EXPECT_NEAR(found.metrics.fit.scale, c.scale, 1e-6 * c.scale);
    EXPECT_NEAR(found.metrics.fit.shift, c.shift, 1e-6);
    EXPECT_NEAR(metrics.abs_rel, c.abs_rel, 1e-6);
    EXPECT_NEAR(metrics.d1, c.d1, 1e-9);
    if (c.rmse == 0) continue;
    EXPECT_NEAR(metrics.rmse, c.rmse, 1e-6);
    EXPECT_NEAR(metrics.silog, c.silog, 1e-5);
  }
}

// Likewise; one prediction and two truths are 0.
TEST(Score, DisparityFitLeavesOutWhatHasNoInverse) {
  DepthMap truth = row_map({}), prediction = row_map({}, kDisparity);
  for (uint32_t i = 0; i < 48; ++i) {
    const double g = i == 5 || i == 17 ? 0 : 2 + 1.5 * u(3, i);
    truth.values.push_back(static_cast<float>(g));
    prediction.values.push_back(static_cast<float>(i == 9 ? 0 : 7 / std::max(g, 0.3) + 3 + 0.4 * u(4, i)));
  }
  truth.width = prediction.width = 48;
  const ImageMetrics found = score(protocol_of("marigold", Alignment::kDisparityLs), "p", truth, prediction).metrics;
  EXPECT_EQ(found.pixels, 46);
  EXPECT_EQ(found.fit.pixels, 45);
  EXPECT_NEAR(found.fit.scale, 0.1397218, 1e-6);
  EXPECT_NEAR(found.fit.shift, -0.4038422, 1e-6);
  EXPECT_NEAR(found.metrics->abs_rel, 0.192996, 1e-6);
  EXPECT_NEAR(found.metrics->d1, 0.978261, 1e-6);
  EXPECT_EQ(prediction.values[9], 10.0f);  // scored, beyond the floor of inverse depth
  EXPECT_GE(found.limited, 1);
  EXPECT_EQ(prediction.kind, kMetricDepth);
}

// The same by NumPy, of 1 / d and 1 / g of what was aligned and limited.
TEST(Score, MetricsOfInverseDepth) {
  const GoldenMaps maps = golden_maps();
  Protocol protocol = protocol_of("marigold", Alignment::kDisparityLs);
  protocol.metric_space = Quantity::kInverseDepth;
  const DepthMap truth{kGoldenWidth, kGoldenHeight, maps.truth};
  DepthMap prediction{kGoldenWidth, kGoldenHeight, maps.disparity, kDisparity};
  const Metrics found = *score(protocol, "p", truth, prediction).metrics.metrics;
  EXPECT_NEAR(found.abs_rel, 0.129497212101, 1e-6);
  EXPECT_NEAR(found.sq_rel, 0.006991829828, 1e-7);
  EXPECT_NEAR(found.rmse, 0.046265893113, 1e-7);
  EXPECT_NEAR(found.i_rmse, 0.893264008995, 1e-6);
  EXPECT_NEAR(found.silog, 18.309714156717, 1e-5);
  EXPECT_NEAR(found.d1, 0.859943977591, 1e-9);
}

TEST(Score, PredictionsWithoutALogarithmAreAtTheLeastDepth) {
  const DepthMap truth = row_map({1, 2, 4, 3});
  DepthMap prediction = row_map({2, 4, 8, -1}, kScaled);
  const ImageMetrics found = score(protocol_of("tie-kd", Alignment::kLogLs), "p", truth, prediction).metrics;
  EXPECT_EQ(found.fit.pixels, 3);
  EXPECT_EQ(found.limited, 1);
  EXPECT_NEAR(prediction.values[2], 4.0f, 1e-6f);
  EXPECT_EQ(prediction.values[3], 1e-3f);
}

TEST(Score, LimitsAreComparedAsFloats) {
  DepthMap prediction = row_map({1, 1, 1, 1});
  const DepthMap truth = row_map({0.001f, std::nextafter(0.001f, 1.0f), 10.0f, std::nextafter(10.0f, 0.0f)});
  EXPECT_EQ(score(protocol_of("tie-kd", Alignment::kNone), "p", truth, prediction).metrics.pixels, 2);
  Protocol within = protocol_of("dav2-metric", Alignment::kNone);
  EXPECT_EQ(valid_mask(within, truth.size(), truth.values), (std::vector<uint8_t>{1, 1, 1, 1}));
}

TEST(Score, NumbersThatAreNotFiniteCountOnlyWhereThereIsTruth) {
  const DepthMap truth = row_map({0, 2, 4, 0});
  DepthMap prediction = row_map({kNan, 2, 4, -kInf});
  const ImageMetrics found = score(protocol_of("tie-kd", Alignment::kNone), "p", truth, prediction).metrics;
  EXPECT_EQ(found.nonfinite, 2);
  EXPECT_EQ(found.metrics->abs_rel, 0);
  EXPECT_EQ(message_of(protocol_of("tie-kd", Alignment::kNone), truth, row_map({1, kInf, 1, 1})),
            "p: row 0, column 1 is inf, expected a finite number where there is truth");
}

TEST(Score, UltralyticsTakesLimitsForThem) {
  std::vector<float> truth(12, 2.0f), prediction(12, 1.0f);
  prediction[0] = kNan;
  prediction[1] = -kInf;
  DepthMap map = row_map(prediction, kScaled);
  const ImageMetrics found = score(protocol_of("ultralytics", Alignment::kMedian), "p", row_map(truth), map).metrics;
  EXPECT_EQ(map.values[0], 10.0f);
  EXPECT_EQ(map.values[1], 0.001f);
  EXPECT_EQ(map.values[2], 2.0f);
  EXPECT_EQ(found.fit.pixels, 10);
  EXPECT_EQ(found.limited, 2);
  Protocol asked = protocol_of("tie-kd", Alignment::kDepthLs);  // --nonfinite limit
  asked.nonfinite_to_limits = true;
  map = row_map(prediction, kScaled);
  EXPECT_EQ(score(asked, "p", row_map(truth), map).metrics.fit.pixels, 10);
  EXPECT_EQ(map.values[0], 10.0f);
  EXPECT_EQ(map.values[1], 0.001f);
  map = row_map(std::vector<float>(9, 1.0f), kScaled);
  EXPECT_FALSE(score(protocol_of("ultralytics", Alignment::kMedian), "p", row_map(std::vector<float>(9, 2.0f)), map)
                   .metrics.metrics.has_value());  // fewer than 10
}

TEST(Score, PredictionsOfTheOtherQuantityAreInvertedIfTheyHaveNoShift) {
  const DepthMap truth = row_map({1, 2, 4, 5});
  const Protocol disparity = protocol_of("marigold", Alignment::kDisparityLs);
  DepthMap depth = row_map({3, 6, 12, 15});
  EXPECT_NEAR(score(disparity, "p", truth, depth).metrics.metrics->abs_rel, 0, 1e-6);
  DepthMap inverse = row_map({2, 1, 0.5f, 0.4f}, {Quantity::kInverseDepth, Ambiguity::kScale});
  EXPECT_NEAR(score(protocol_of("tie-kd", Alignment::kMedian), "p", truth, inverse).metrics.metrics->abs_rel, 0, 1e-6);
  EXPECT_FALSE(is_inverted(protocol_of("marigold", Alignment::kDepthLs), kDisparity));
  DepthMap shifted = row_map({0.9f, 0.4f, 0.15f, 0.1f}, kDisparity);
  EXPECT_LT(score(protocol_of("marigold", Alignment::kDepthLs), "p", truth, shifted).metrics.fit.scale, 0);
}

TEST(Score, KindsThatAnAlignmentCannotMakeMetresOfAreRefused) {
  const std::string affine =
      ", or an affine alignment to make metres of it (depth-ls, disparity-ls, depth-l1, disparity-l1)";
  const struct {
    Alignment alignment;
    MapKind kind;
    std::string expected;
  } cases[] = {
      {Alignment::kNone, kDisparity, "m is inverse depth up to scale and shift, expected depth in metres" + affine},
      {Alignment::kNone, kScaled, "m is depth up to scale, expected depth in metres" + affine},
      {Alignment::kMedian, kDisparity, "m is inverse depth up to scale and shift, expected depth up to scale" + affine},
      {Alignment::kMedian, kScaled, "accepted"},
      {Alignment::kDisparityLs, kDisparity, "accepted"},
      {Alignment::kDepthL1, kMetricDepth, "accepted"},
  };
  for (const auto& c : cases) {
    std::string found = "accepted";
    try {
      check_kind(protocol_of("tie-kd", c.alignment), c.kind, "m");
    } catch (const Error& error) {
      found = error.what();
    }
    EXPECT_EQ(found, c.expected);
  }
}

TEST(Score, DepthAnythingMetricNeitherClampsNorForgives) {
  std::vector<float> truth(12, 2.0f), prediction(12, 3.0f);
  prediction[0] = 200;
  truth[1] = 11;  // beyond the limit
  DepthMap map = row_map(prediction);
  const ImageMetrics found = score(protocol_of("dav2-metric", Alignment::kNone), "p", row_map(truth), map).metrics;
  EXPECT_EQ(found.pixels, 11);
  EXPECT_EQ(map.values[0], 200.0f);
  const double e = std::log(1.5), wild = std::log(100), mean = (10 * e + wild) / 11;
  EXPECT_NEAR(found.metrics->silog, std::sqrt((10 * e * e + wild * wild) / 11 - 0.5 * mean * mean), 1e-7);
  prediction[0] = 0;
  EXPECT_EQ(message_of(protocol_of("dav2-metric", Alignment::kNone), row_map(truth), row_map(prediction)),
            "p: expected depths > 0 at valid pixels, found 1 that are not, which protocol dav2-metric does not clamp");
}

TEST(Score, MogeCountsNegativeDepthsAsCorrect) {
  DepthMap map = row_map({-5, 3, 3});
  const ImageMetrics found =
      score(protocol_of("moge", Alignment::kNone), "p", row_map({3, 3, 4000}), map).metrics;  // 4000 > 1000 x 3
  EXPECT_EQ(found.pixels, 2);
  EXPECT_EQ(found.negative, 1);
  EXPECT_EQ(found.metrics->d1, 1);
  EXPECT_NEAR(found.metrics->abs_rel, 8 / (3 + 1e-6) / 2, 1e-12);
}

TEST(Score, Monodepth2TakesTheMedianOverGargsBoxOfTheWholeFrame) {
  Protocol protocol = make_protocol("kitti", "monodepth2");
  EXPECT_EQ(eval_rect(protocol, {1242, 375}), (Rect{44, 153, 1197 - 44, 371 - 153}));
  protocol.alignment = Alignment::kMedian;
  DepthMap truth{1242, 375, std::vector<float>(1242 * 375, 0.0f)};
  for (int y = 0; y < 375; ++y) {
    for (int x = 0; x < 1242; ++x) {
      truth.values[static_cast<size_t>(y) * 1242 + static_cast<size_t>(x)] = y < 200 ? 60.0f : 6.0f;
    }
  }
  DepthMap prediction = truth;
  prediction.kind = {Quantity::kInverseDepth, Ambiguity::kScale};
  for (float& value : prediction.values) value = 7 / value;
  const ImageMetrics found = score(protocol, "p", truth, prediction).metrics;
  EXPECT_EQ(found.pixels, 218 * 1153);
  EXPECT_NEAR(found.fit.scale, 7, 1e-5);
  EXPECT_NEAR(found.metrics->abs_rel, 0, 1e-6);
}

// The left half is off by a shift: one fit cannot serve both halves, one to the centre can.
TEST(Score, CentreIsFittedByItself) {
  DepthMap truth{8, 8, {}}, prediction{8, 8, {}, {Quantity::kDepth, Ambiguity::kScaleAndShift}};
  for (int i = 0; i < 64; ++i) {
    const int row = i / 8, column = i % 8;
    const bool centre = row >= 2 && row < 6 && column >= 2 && column < 6;
    truth.values.push_back(static_cast<float>(1 + column + row) * 0.5f);
    prediction.values.push_back(centre ? truth.values.back() : truth.values.back() * 0.5f + 3);
  }
  const ImageScore found =
      score(protocol_of("marigold", Alignment::kDepthLs), "p", truth, prediction, {.local_fit = true});
  ASSERT_TRUE(found.centre.has_value());
  EXPECT_NEAR(found.centre->local.abs_rel, 0, 1e-6);
  EXPECT_GT(found.centre->global.abs_rel, 0.1);
}

TEST(FitPixels, ColumnsOfALongerSide) {
  EXPECT_EQ(fitted_columns({5, 3}, 0), (std::vector<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(fitted_columns({5, 3}, 5), (std::vector<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(fitted_columns({60, 40}, 32).size(), 32u);
  EXPECT_EQ(fitted_columns({60, 40}, 32)[31], 58);                        // floor(31 * 1.875)
  EXPECT_EQ(fitted_columns({40, 60}, 30), fitted_columns({40, 20}, 20));  // the rows' length decides
}

TEST(FitPixels, GridTakesTheNearestValidPixelOfACell) {
  const ImageSize frame{128, 128};  // cells of 2 x 2, whose pixels are all as near
  std::vector<uint8_t> valid(128 * 128, 1);
  valid[0] = 0;
  valid[4] = valid[5] = valid[132] = valid[133] = 0;  // a cell without any
  const std::vector<uint8_t> mask = grid_mask(frame, valid);
  EXPECT_EQ(std::count(mask.begin(), mask.end(), 1), 64 * 64 - 1);
  EXPECT_EQ(mask[1], 1);  // first in row-major order behind the hole
  EXPECT_EQ(mask[2], 1);
  EXPECT_EQ(mask[3], 0);
}

}  // namespace
}  // namespace depthstill
