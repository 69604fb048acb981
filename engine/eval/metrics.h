// Depth metrics of one image and their mean over a set. With prediction p, truth g (metres) over the valid pixels:
//   abs_rel mean |p - g| / g          sq_rel mean (p - g)^2 / g       rmse sqrt(mean (p - g)^2)
//   rmse_log sqrt(mean e^2)           log10 mean |log10 p - log10 g|  silog 100 sqrt(mean e^2 - (mean e)^2)
//   i_rmse sqrt(mean (1/p - 1/g)^2), 1/m
//   d_k      share of pixels with max(p / g, g / p) < 1.25^k          where e = ln p - ln g
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/eval/alignment.h"

namespace depthstill {

struct Metrics {
  double abs_rel = 0, sq_rel = 0, rmse = 0, rmse_log = 0, log10 = 0, silog = 0, d1 = 0, d2 = 0, d3 = 0;
  double i_rmse = 0;
};

struct MetricField {
  const char* name;
  double Metrics::*value;
  bool lower_is_better;
  const char* meaning;  // for those who read the figure: p is the prediction, g the truth
};
inline constexpr std::array<MetricField, 9> kMetricFields{{
    {"abs_rel", &Metrics::abs_rel, true, "mean of |p - g| / g: 0.1 is 10 % off"},
    {"sq_rel", &Metrics::sq_rel, true, "mean of (p - g)² / g, metres"},
    {"rmse", &Metrics::rmse, true, "root of the mean of (p - g)², metres: far pixels decide it"},
    {"rmse_log", &Metrics::rmse_log, true, "root of the mean of (ln p - ln g)²"},
    {"log10", &Metrics::log10, true, "mean of |log10 p - log10 g|"},
    {"silog", &Metrics::silog, true, "100 times the standard deviation of ln p - ln g: a wrong scale does not count"},
    {"d1", &Metrics::d1, false, "share of pixels where p and g differ by less than a factor of 1.25"},
    {"d2", &Metrics::d2, false, "the same with 1.25²"},
    {"d3", &Metrics::d3, false, "the same with 1.25³"},
}};
// And what an evaluation finds beyond these.
inline constexpr std::array<MetricField, 10> kEvalFields = [] {
  std::array<MetricField, 10> fields{};
  std::copy(kMetricFields.begin(), kMetricFields.end(), fields.begin());
  fields.back() = {"i_rmse", &Metrics::i_rmse, true, "root of the mean of (1/p - 1/g)², 1/m: near pixels decide it"};
  return fields;
}();

// The field of that name; throws Error that lists the names if there is none.
const MetricField& metric_field(std::string_view name);

// A MetricRule says how a protocol's metrics differ from the formulas above.
struct MetricRule {
  double abs_rel_offset = 0;                  // metres: abs_rel is mean |p - g| / (g + this)
  double silog_mean = 1, silog_factor = 100;  // silog is factor sqrt(mean e^2 - mean weight (mean e)^2)
  bool inverse = false;  // p and g are inverse depth, 1/m: abs_rel, sq_rel and rmse differ, and i_rmse is in metres
};

// Sums over pixels; of silog and the roots, what they are made of.
struct MetricSums {
  int64_t pixels = 0;
  Metrics sum;
  double square = 0, log = 0, log_square = 0, inverse_square = 0;

  MetricSums& operator+=(const MetricSums& other);
  // Adds the pixels with valid != 0: metres, truth > 0.
  void add(std::span<const float> prediction, std::span<const float> truth, std::span<const uint8_t> valid,
           const MetricRule& rule);
  std::optional<Metrics> mean(const MetricRule& rule) const;  // nothing without pixels

 private:
  void add_valid(std::span<const double> predictions, std::span<const double> truths, const MetricRule& rule);
};

// Metrics over the pixels with valid != 0, in double, with the same bits for any number of threads. Nothing if there
// are none. Truths at valid pixels must be positive and finite. Where a prediction is not positive, those metrics are
// NaN that take its logarithm; d_k counts a ratio that is negative as less than any limit, as MoGe does.
std::optional<Metrics> compute_metrics(std::span<const float> prediction, std::span<const float> truth,
                                       std::span<const uint8_t> valid, const MetricRule& rule = {});

struct ImageMetrics {
  std::string name;
  int64_t pixels = 0;                   // valid ones
  std::optional<Metrics> metrics{};     // nothing: too few valid pixels
  Fit fit{};                            // of an alignment
  int64_t limited = 0;                  // valid pixels whose depth a limit has changed
  int64_t negative = 0;                 // valid pixels whose depth is <= 0, where a protocol has no limits
  int64_t nonfinite = 0;                // pixels that are NaN or infinite and are not used
  std::optional<double> boundary_f1{};  // nothing: not asked for
};

// Arithmetic mean of per-image values; images without a valid pixel are left out and counted.
struct MetricsSummary {
  Metrics mean;
  int64_t images = 0;   // images in the mean
  int64_t skipped = 0;  // images without a valid pixel
};
MetricsSummary summarize(std::span<const ImageMetrics> images);

// Two aligned lines, names over values with four decimals.
std::string format_metrics(const Metrics& metrics, std::span<const MetricField> fields = kMetricFields);
// The second one alone, without its end.
std::string format_values(const Metrics& metrics, std::span<const MetricField> fields = kMetricFields);

}  // namespace depthstill
