#include "engine/eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine/io/atomic_file.h"
#include "kernels/core/error.h"

namespace depthstill {

const MetricField& metric_field(std::string_view name) {
  for (const MetricField& field : kMetricFields) {
    if (field.name == name) return field;
  }
  fail("metric: expected one of ", list_text(kMetricFields, [](const MetricField& field) { return field.name; }),
       ", got '", name, "'");
}

std::optional<Metrics> compute_metrics(std::span<const float> prediction, std::span<const float> truth,
                                       std::span<const uint8_t> valid) {
  check(prediction.size() == truth.size() && truth.size() == valid.size(), "metrics: prediction has ",
        prediction.size(), " pixels, truth ", truth.size(), ", mask ", valid.size());
  Metrics sum;
  double log_sum = 0, log_square_sum = 0, square_sum = 0;
  int64_t pixels = 0;
  for (size_t i = 0; i < valid.size(); ++i) {
    if (valid[i] == 0) continue;
    const double p = prediction[i], g = truth[i];
    const double difference = p - g, e = std::log(p) - std::log(g), ratio = std::max(p / g, g / p);
    sum.abs_rel += std::abs(difference) / g;
    sum.sq_rel += difference * difference / g;
    square_sum += difference * difference;
    log_sum += e;
    log_square_sum += e * e;
    sum.log10 += std::abs(std::log10(p) - std::log10(g));
    sum.d1 += ratio < 1.25;
    sum.d2 += ratio < 1.25 * 1.25;
    sum.d3 += ratio < 1.25 * 1.25 * 1.25;
    ++pixels;
  }
  if (pixels == 0) return std::nullopt;
  const double n = static_cast<double>(pixels), log_mean = log_sum / n;
  sum.abs_rel /= n;
  sum.sq_rel /= n;
  sum.rmse = std::sqrt(square_sum / n);
  sum.rmse_log = std::sqrt(log_square_sum / n);
  sum.log10 /= n;
  sum.silog = 100.0 * std::sqrt(std::max(0.0, log_square_sum / n - log_mean * log_mean));
  sum.d1 /= n;
  sum.d2 /= n;
  sum.d3 /= n;
  return sum;
}

MetricsSummary summarize(std::span<const ImageMetrics> images) {
  MetricsSummary summary;
  for (const ImageMetrics& image : images) {
    if (!image.metrics) {
      ++summary.skipped;
      continue;
    }
    ++summary.images;
    for (const MetricField& field : kMetricFields) summary.mean.*field.value += *image.metrics.*field.value;
  }
  for (const MetricField& field : kMetricFields) {
    summary.mean.*field.value =
        summary.images ? summary.mean.*field.value / static_cast<double>(summary.images) : std::nan("");
  }
  return summary;
}

void write_metrics_csv(const std::string& path, std::span<const ImageMetrics> images) {
  std::string text = "image,pixels";
  for (const MetricField& field : kMetricFields) text += std::string(",") + field.name;
  text += '\n';
  for (const ImageMetrics& image : images) {
    const bool quote = image.name.find_first_of(",\"\n") != std::string::npos;
    std::string name = image.name;
    for (size_t at = 0; quote && (at = name.find('"', at)) != std::string::npos; at += 2) name.insert(at, 1, '"');
    text += quote ? '"' + name + '"' : name;
    text += ',' + std::to_string(image.pixels);
    for (const MetricField& field : kMetricFields) {
      char value[40] = ",";
      if (image.metrics) std::snprintf(value, sizeof value, ",%.9g", *image.metrics.*field.value);
      text += value;
    }
    text += '\n';
  }
  write_file(path, text);
}

std::string format_values(const Metrics& metrics) {
  std::string values;
  for (const MetricField& field : kMetricFields) {
    char cell[32];
    std::snprintf(cell, sizeof cell, "%10.4f", metrics.*field.value);
    values += cell;
  }
  return values;
}

std::string format_metrics(const Metrics& metrics) {
  std::string names;
  for (const MetricField& field : kMetricFields) {
    char cell[32];
    std::snprintf(cell, sizeof cell, "%10s", field.name);
    names += cell;
  }
  return names + '\n' + format_values(metrics) + '\n';
}

}  // namespace depthstill
