#include "engine/eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>

#include "engine/eval/pixel_blocks.h"
#include "kernels/core/error.h"
#include "kernels/core/vector_math.h"

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

void MetricSums::add(std::span<const float> prediction, std::span<const float> truth, std::span<const uint8_t> valid,
                     const MetricRule& rule) {
  constexpr size_t kAtOnce = 256;
  double predictions[kAtOnce], truths[kAtOnce];
  for (size_t first = 0; first < valid.size(); first += kAtOnce) {
    size_t count = 0;
    for (size_t i = first; i < std::min(valid.size(), first + kAtOnce); ++i) {
      predictions[count] = static_cast<double>(prediction[i]);
      truths[count] = static_cast<double>(truth[i]);
      count += valid[i] != 0;
    }
    for (size_t i = 0; rule.inverse && i < count; ++i) {
      predictions[i] = 1 / predictions[i];
      truths[i] = 1 / truths[i];
    }
    add_valid({predictions, count}, {truths, count}, rule);
  }
}

void MetricSums::add_valid(std::span<const double> predictions, std::span<const double> truths,
                           const MetricRule& rule) {
  double abs_rel = 0, sq_rel = 0, log_size = 0, squares = 0, logs = 0, log_squares = 0, inverse_squares = 0;
  double d1 = 0, d2 = 0, d3 = 0;
#pragma omp simd reduction(+ : abs_rel, sq_rel, log_size, squares, logs, log_squares, inverse_squares, d1, d2, d3)
  for (size_t i = 0; i < truths.size(); ++i) {
    const double p = predictions[i], g = truths[i], difference = p - g, over = p / g, under = g / p;
    const double e = vector_log(over), ratio = over < under ? under : over, inverse = 1 / p - 1 / g;
    abs_rel += std::abs(difference) / (g + rule.abs_rel_offset);
    sq_rel += difference * difference / g;
    log_size += std::abs(e);
    squares += difference * difference;
    logs += e;
    log_squares += e * e;
    inverse_squares += inverse * inverse;
    d1 += ratio < 1.25 ? 1.0 : 0.0;
    d2 += ratio < 1.25 * 1.25 ? 1.0 : 0.0;
    d3 += ratio < 1.25 * 1.25 * 1.25 ? 1.0 : 0.0;
  }
  pixels += static_cast<int64_t>(truths.size());
  sum.abs_rel += abs_rel;
  sum.sq_rel += sq_rel;
  sum.log10 += log_size;
  sum.d1 += d1;
  sum.d2 += d2;
  sum.d3 += d3;
  square += squares;
  log += logs;
  log_square += log_squares;
  inverse_square += inverse_squares;
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
    block.add(prediction.subspan(begin, end - begin), truth.subspan(begin, end - begin),
              valid.subspan(begin, end - begin), rule);
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
  return names + '\n' + format_values(metrics, fields) + '\n';
}

}  // namespace depthstill
