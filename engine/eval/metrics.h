// Depth metrics of one image and their mean over a set. With prediction p, truth g (metres) over the valid pixels:
//   abs_rel mean |p - g| / g          sq_rel mean (p - g)^2 / g       rmse sqrt(mean (p - g)^2)
//   rmse_log sqrt(mean e^2)           log10 mean |log10 p - log10 g|  silog 100 sqrt(mean e^2 - (mean e)^2)
//   d_k      share of pixels with max(p / g, g / p) < 1.25^k          where e = ln p - ln g
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace depthstill {

struct Metrics {
  double abs_rel = 0, sq_rel = 0, rmse = 0, rmse_log = 0, log10 = 0, silog = 0, d1 = 0, d2 = 0, d3 = 0;
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

// The field of that name; throws Error that lists the names if there is none.
const MetricField& metric_field(std::string_view name);

// Metrics over the pixels with valid != 0, in double. Nothing if there are none. Predictions and truths at valid pixels
// must be positive and finite.
std::optional<Metrics> compute_metrics(std::span<const float> prediction, std::span<const float> truth,
                                       std::span<const uint8_t> valid);

struct ImageMetrics {
  std::string name;
  int64_t pixels = 0;              // valid ones
  std::optional<Metrics> metrics;  // nothing: no valid pixel
};

// Arithmetic mean of per-image values; images without a valid pixel are left out and counted.
struct MetricsSummary {
  Metrics mean;
  int64_t images = 0;   // images in the mean
  int64_t skipped = 0;  // images without a valid pixel
};
MetricsSummary summarize(std::span<const ImageMetrics> images);

// One line per image: name, pixels, the nine values (empty where skipped); written atomically.
void write_metrics_csv(const std::string& path, std::span<const ImageMetrics> images);
// Two aligned lines, names over values with four decimals.
std::string format_metrics(const Metrics& metrics);
std::string format_values(const Metrics& metrics);  // the second one alone, without its end

}  // namespace depthstill
