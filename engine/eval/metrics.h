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
};
inline constexpr std::array<MetricField, 9> kMetricFields{{
    {"abs_rel", &Metrics::abs_rel, true},
    {"sq_rel", &Metrics::sq_rel, true},
    {"rmse", &Metrics::rmse, true},
    {"rmse_log", &Metrics::rmse_log, true},
    {"log10", &Metrics::log10, true},
    {"silog", &Metrics::silog, true},
    {"d1", &Metrics::d1, false},
    {"d2", &Metrics::d2, false},
    {"d3", &Metrics::d3, false},
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

}  // namespace depthstill
