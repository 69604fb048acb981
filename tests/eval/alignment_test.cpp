#include "engine/eval/alignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/eval/l1_fit.h"
#include "engine/eval/median_search.h"
#include "engine/eval/metrics.h"
#include "kernels/core/error.h"
#include "kernels/core/parallel.h"
#include "tests/eval/golden_map.h"

namespace depthstill {
namespace {

using testing_eval::u;

struct Maps {
  std::vector<float> prediction, truth;
  std::vector<uint8_t> mask;
};

// Truths in [1, 3) and predictions scale * y + shift + noise, y the truth or its inverse; every fifth pixel is wild and
// masked out.
Maps affine_maps(int n, bool inverse, double scale, double shift, double noise) {
  Maps maps;
  for (int i = 0; i < n; ++i) {
    const auto index = static_cast<uint32_t>(i);
    const double g = static_cast<float>(2 + u(1, index)), y = inverse ? 1 / g : g;
    const bool used = i % 5 != 2;
    maps.truth.push_back(static_cast<float>(g));
    maps.prediction.push_back(static_cast<float>(used ? scale * y + shift + noise * u(2, index) : 1e9));
    maps.mask.push_back(used);
  }
  return maps;
}

Fit fit_of(Alignment alignment, const Maps& maps, const MedianRule& rule = {}) {
  return fit(alignment, rule, "p", maps.prediction, maps.truth, maps.mask);
}

TEST(Alignment, NamesAreThoseOfTheTable) {
  for (const AlignmentRow& row : alignments()) {
    EXPECT_EQ(find_alignment(row.name), row.alignment);
    EXPECT_STREQ(row_of(row.alignment).name, row.name);
  }
  EXPECT_THROW(find_alignment("least-squares"), Error);
}

TEST(Alignment, AffineFitsUndoAnAffineMap) {
  for (const Alignment alignment :
       {Alignment::kDepthLs, Alignment::kDisparityLs, Alignment::kDepthL1, Alignment::kDisparityL1}) {
    const Fit found = fit_of(alignment, affine_maps(1000, fits_inverse(alignment), 4, -3, 0));
    EXPECT_NEAR(found.scale, 0.25, 1e-6) << row_of(alignment).name;
    EXPECT_NEAR(found.shift, 0.75, 1e-6) << row_of(alignment).name;
    EXPECT_EQ(found.pixels, 800);
  }
  const Fit scaled = fit_of(Alignment::kScaleL1, affine_maps(1000, false, 4, 0, 0));
  EXPECT_NEAR(scaled.scale, 0.25, 1e-6);
  EXPECT_EQ(scaled.shift, 0);
}

TEST(Alignment, LogLsUndoesAPower) {
  Maps maps = affine_maps(1000, false, 1, 0, 0);
  for (float& p : maps.prediction) p = 3 * p * p;  // g = (p / 3)^0.5
  const Fit found = fit_of(Alignment::kLogLs, maps);
  EXPECT_NEAR(found.scale, 0.5, 1e-6);
  EXPECT_NEAR(found.shift, -0.5 * std::log(3), 1e-6);
}

// n sum p^2 - (sum p)^2 would lose all digits: what is left of the truth in a float beside this offset are steps of
// 2^-10 of its range.
TEST(Alignment, LeastSquaresHoldWithALargeOffset) {
  const Fit found = fit_of(Alignment::kDisparityLs, affine_maps(100000, true, 1000, 1e5, 0));
  EXPECT_NEAR(found.scale, 1e-3, 1e-7);
  EXPECT_NEAR(found.shift, -100, 1e-2);
}

TEST(Alignment, EqualPredictionsTakeTheFitOfLeastNorm) {
  Maps maps = affine_maps(100, false, 0, 2, 0);
  const Fit least_squares = fit_of(Alignment::kDepthLs, maps);
  double mean = 0;
  for (size_t i = 0; i < maps.truth.size(); ++i) mean += maps.mask[i] ? static_cast<double>(maps.truth[i]) / 80 : 0;
  EXPECT_NEAR(least_squares.scale, mean * 2 / 5, 1e-12);
  EXPECT_NEAR(least_squares.shift, mean / 5, 1e-12);
  const Fit l1 = fit_of(Alignment::kDepthL1, maps);
  EXPECT_DOUBLE_EQ(l1.scale, 2 * l1.shift);
}

TEST(Alignment, MediansOfAnEvenCount) {
  const Maps maps = {{1, 2, 4, 9}, {10, 20, 30, 80}, {1, 1, 1, 1}};
  EXPECT_FLOAT_EQ(static_cast<float>(fit_of(Alignment::kMedian, maps).scale), 25.0f / 3);
  EXPECT_DOUBLE_EQ(fit_of(Alignment::kMedian, maps, {true, 0}).scale, 10);
  EXPECT_DOUBLE_EQ(fit_of(Alignment::kMedian, maps, {true, 8}).scale, 2.5);  // predictions 8, 8, 8, 9
  EXPECT_THROW(fit_of(Alignment::kMedian, {{-1, -2}, {1, 2}, {1, 1}}), Error);
}

// Against sorting: few values and many, of any sign, some equal, in parts.
TEST(MedianSearch, FindsTheMiddleOfSortedValues) {
  for (const uint32_t count : {1u, 2u, 7u, 1000u, 4096u}) {
    std::vector<float> values;
    for (uint32_t i = 0; i < count; ++i) values.push_back(static_cast<float>(std::round(900 * u(5, i)) / 7 + 40));
    MedianSearch search;
    const auto pass = [&](const auto& take) {
      for (size_t at = 0; at < count; at += 300) take(std::span(values).subspan(at, std::min<size_t>(300, count - at)));
    };
    pass([&](std::span<const float> part) { search.count_upper(part); });
    search.begin_second();
    pass([&](std::span<const float> part) { search.count_lower(part); });
    std::sort(values.begin(), values.end());
    const float below = values[(count - 1) / 2], above = values[count / 2];
    EXPECT_EQ(search.median(true), below) << count;
    EXPECT_EQ(search.median(false), 0.5f * (below + above)) << count;
  }
}

// Relative ones of depth, or of inverse depth.
double residuals(const Maps& maps, bool inverse, double scale, double shift) {
  double sum = 0;
  for (size_t i = 0; i < maps.mask.size(); ++i) {
    const double p = maps.prediction[i], g = maps.truth[i], y = inverse ? 1 / g : g;
    if (maps.mask[i]) sum += std::abs(scale * p + shift - y) / y;
  }
  return sum;
}

// An L1 optimum passes through points: through one of them if there is no shift, else through two.
TEST(Alignment, L1FitsAreNoWorseThanAnyLineThroughThePoints) {
  const std::pair<double, bool> cases[] = {{0.3, false}, {-2.0, false}, {3.0, true}};
  for (const auto& [scale, inverse] : cases) {
    const Maps maps = affine_maps(60, inverse, scale, 5, 0.4);
    const Fit line = fit_of(inverse ? Alignment::kDisparityL1 : Alignment::kDepthL1, maps),
              ray = fit_of(Alignment::kScaleL1, maps);
    double best_line = 1e9, best_ray = 1e9;
    for (size_t i = 0; i < maps.mask.size(); ++i) {
      if (!maps.mask[i]) continue;
      const double p = maps.prediction[i], g = maps.truth[i];
      best_ray = std::min(best_ray, residuals(maps, false, g / p, 0));
      for (size_t j = 0; j < i; ++j) {
        if (!maps.mask[j]) continue;
        const double other = maps.truth[j], y = inverse ? 1 / g : g, rise = y - (inverse ? 1 / other : other);
        const double slope = rise / (p - static_cast<double>(maps.prediction[j]));
        best_line = std::min(best_line, residuals(maps, inverse, slope, y - slope * p));
      }
    }
    EXPECT_NEAR(residuals(maps, inverse, line.scale, line.shift), best_line, 1e-9);
    EXPECT_NEAR(residuals(maps, false, ray.scale, 0), best_ray, 1e-9);
  }
}

TEST(Alignment, WeightedMedianIsTheFirstToReachHalfTheWeight) {
  std::vector<WeightedValue> values = {{5, 1}, {1, 2}, {3, 4}, {2, 1}};
  EXPECT_EQ(weighted_median(values), 3);
  values = {{2, 1}, {1, 1}};
  EXPECT_EQ(weighted_median(values), 1);
  values = {{7, 1e-9}};
  EXPECT_EQ(weighted_median(values), 7);
}

TEST(Alignment, NothingToFitIsAnError) {
  const Maps maps = {{1, 2}, {1, 2}, {0, 0}};
  for (const AlignmentRow& row : alignments()) {
    if (row.alignment == Alignment::kNone) continue;
    try {
      fit(row.alignment, {}, "list.txt:3: prediction for a.png", maps.prediction, maps.truth, maps.mask);
      ADD_FAILURE() << row.name;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()),
                concat_text("list.txt:3: prediction for a.png: expected a pixel to fit by ", row.name, ", found none"));
    }
  }
}

TEST(Alignment, NumberOfThreadsLeavesTheBits) {
  const Maps maps = affine_maps(3 * 65536 + 11, true, 3, 2, 0.1);
  const int before = num_threads();
  std::vector<std::pair<Fit, Metrics>> found;
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    found.emplace_back(fit_of(Alignment::kDisparityLs, maps), *compute_metrics(maps.prediction, maps.truth, maps.mask));
  }
  set_num_threads(before);
  EXPECT_EQ(std::memcmp(&found[0].first, &found[1].first, sizeof(Fit)), 0);
  EXPECT_EQ(std::memcmp(&found[0].second, &found[1].second, sizeof(Metrics)), 0);
}

}  // namespace
}  // namespace depthstill
