#include "engine/eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>

#include "engine/eval/pixel_blocks.h"
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

MetricSums& MetricSums::operator+=(const MetricSums& other) {
  pixels += other.pixels;
  for (const MetricField& field : kEvalFields) sum.*field.value += other.sum.*field.value;
  square += other.square;
  log += other.log;
  log_square += other.log_square;
  inverse_square += other.inverse_square;
  return *this;
}

std::optional<Metrics> MetricSums::mean(const MetricRule& rule) const {
  if (pixels == 0) return std::nullopt;
  Metrics mean;
  const double n = static_cast<double>(pixels), log_mean = log / n;
  for (const MetricField& field : kEvalFields) mean.*field.value = sum.*field.value / n;
  mean.rmse = std::sqrt(square / n);
  mean.rmse_log = std::sqrt(log_square / n);
  mean.log10 /= std::numbers::ln10;
  const double variance = log_square / n - rule.silog_mean * log_mean * log_mean;
  mean.silog = rule.silog_factor * std::sqrt(variance < 0 ? 0.0 : variance);
  mean.i_rmse = std::sqrt(inverse_square / n);
  return mean;
}

std::optional<Metrics> compute_metrics(std::span<const float> prediction, std::span<const float> truth,
                                       std::span<const uint8_t> valid, const MetricRule& rule) {
  check(prediction.size() == truth.size() && truth.size() == valid.size(), "metrics: prediction has ",
        prediction.size(), " pixels, truth ", truth.size(), ", mask ", valid.size());
  const auto sums = sum_pixel_blocks<MetricSums>(valid.size(), [&](size_t begin, size_t end) {
    MetricSums block;
    for (size_t i = begin; i < end; ++i) {
      if (valid[i]) block.add(prediction[i], truth[i], rule);
    }
    return block;
  });
  return sums.mean(rule);
}

MetricsSummary summarize(std::span<const ImageMetrics> images) {
  MetricsSummary summary;
  for (const ImageMetrics& image : images) {
    if (!image.metrics) {
      ++summary.skipped;
      continue;
    }
    ++summary.images;
    for (const MetricField& field : kEvalFields) summary.mean.*field.value += *image.metrics.*field.value;
  }
  for (const MetricField& field : kEvalFields) {
    summary.mean.*field.value =
        summary.images ? summary.mean.*field.value / static_cast<double>(summary.images) : std::nan("");
  }
  return summary;
}

namespace {

std::string quoted(const std::string& name) {
  if (name.find_first_of(",\"\n") == std::string::npos) return name;
  std::string text = name;
  for (size_t at = 0; (at = text.find('"', at)) != std::string::npos; at += 2) text.insert(at, 1, '"');
  return '"' + text + '"';
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

bool among(const MetricField& field, std::span<const MetricField> fields) {
  return std::any_of(fields.begin(), fields.end(), [&](const MetricField& one) { return one.value == field.value; });
}

}  // namespace

void write_metrics_csv(const std::string& path, std::span<const ImageMetrics> images,
                       std::span<const MetricField> fields, bool fits) {
  std::vector<MetricField> first, last;
  for (const MetricField& field : fields) (among(field, kMetricFields) ? first : last).push_back(field);
  std::string text = "image,pixels";
  for (const MetricField& field : first) text += std::string(",") + field.name;
  if (fits) text += ",scale,shift,fit_pixels";
  for (const MetricField& field : last) text += std::string(",") + field.name;
  const bool boundary = std::any_of(images.begin(), images.end(),
                                    [](const ImageMetrics& image) { return image.boundary_f1.has_value(); });
  if (boundary) text += ",boundary_f1";
  text += '\n';
  for (const ImageMetrics& image : images) {
    const auto add = [&](double value) { text += image.metrics ? ',' + number(value) : ","; };
    text += quoted(image.name) + ',' + std::to_string(image.pixels);
    for (const MetricField& field : first) add(image.metrics ? *image.metrics.*field.value : 0);
    if (fits) {
      add(image.fit.scale);
      add(image.fit.shift);
      add(static_cast<double>(image.fit.pixels));
    }
    for (const MetricField& field : last) add(image.metrics ? *image.metrics.*field.value : 0);
    if (boundary) add(image.boundary_f1.value_or(0));
    text += '\n';
  }
  write_file(path, text);
}

std::string format_values(const Metrics& metrics, std::span<const MetricField> fields) {
  std::string values;
  for (const MetricField& field : fields) {
    char cell[32];
    std::snprintf(cell, sizeof cell, "%10.4f", metrics.*field.value);
    values += cell;
  }
  return values;
}

std::string format_metrics(const Metrics& metrics, std::span<const MetricField> fields) {
  std::string names;
  for (const MetricField& field : fields) {
    char cell[32];
    std::snprintf(cell, sizeof cell, "%10s", field.name);
    names += cell;
  }
  return names + '\n' + format_values(metrics) + '\n';
}

}  // namespace depthstill
