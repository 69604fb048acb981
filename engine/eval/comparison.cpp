#include "engine/eval/comparison.h"

#include "kernels/core/error.h"

namespace depthstill {
namespace {

void check_same(std::span<const ImageMetrics> images, std::span<const ImageMetrics> others, const std::string& other) {
  check(images.size() == others.size(), other, ": expected the figures of ", images.size(), " images, found ",
        others.size());
  for (size_t i = 0; i < images.size(); ++i) {
    check(images[i].name == others[i].name, other, ": expected ", images[i].name, " as image ", i + 1, ", found ",
          others[i].name);
    check(images[i].pixels == others[i].pixels && images[i].metrics.has_value() == others[i].metrics.has_value(), other,
          ": expected figures by the same protocol, which counts ", images[i].pixels, " pixels of ", images[i].name,
          ", found ", others[i].pixels);
  }
}

}  // namespace

Comparison compare(std::span<const ImageMetrics> images, std::span<const ImageMetrics> others, const std::string& other,
                   std::span<const MetricField> fields, const BootstrapOptions& options, const SceneOf& scene_of) {
  check_same(images, others, other);
  Comparison result{other, 0, {}};
  for (const MetricField& field : fields) result.metrics.push_back({field, 0, {}, 0});
  std::vector<ImageMetrics> differences;
  for (size_t i = 0; i < images.size(); ++i) {
    if (!images[i].metrics) continue;
    ImageMetrics difference{images[i].name, images[i].pixels, Metrics{}};
    for (ComparedMetric& metric : result.metrics) {
      const double value = *images[i].metrics.*metric.field.value - *others[i].metrics.*metric.field.value;
      *difference.metrics.*metric.field.value = value;
      metric.difference += value;
      metric.better_share += metric.field.lower_is_better ? value < 0 : value > 0;
    }
    differences.push_back(std::move(difference));
  }
  result.images = static_cast<int64_t>(differences.size());
  const std::vector<Interval> intervals = bootstrap(differences, fields, options, scene_of);
  for (size_t f = 0; f < intervals.size(); ++f) {
    ComparedMetric& metric = result.metrics[f];
    metric.interval = intervals[f];
    metric.difference /= static_cast<double>(result.images);
    metric.better_share /= static_cast<double>(result.images);
  }
  return result;
}

}  // namespace depthstill
