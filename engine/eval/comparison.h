// Two systems on the same images. Differences are taken image by image, so that what makes an image hard, which both
// share, does not widen their interval.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/eval/bootstrap.h"
#include "engine/eval/metrics.h"

namespace depthstill {

struct ComparedMetric {
  MetricField field;
  double difference = 0;    // the mean of this system's value minus the other's
  Interval interval;        // of that, by bootstrap()
  double better_share = 0;  // share of images on which this system is strictly better
};

struct Comparison {
  std::string other;   // where the other's figures are from
  int64_t images = 0;  // scored of both
  std::vector<ComparedMetric> metrics;
};

// Throws Error that begins with `other` unless both lists have the same images, in the same order, with the same counts
// of valid pixels. draws > 0.
Comparison compare(std::span<const ImageMetrics> images, std::span<const ImageMetrics> others, const std::string& other,
                   std::span<const MetricField> fields, const BootstrapOptions& options, const SceneOf& scene_of = {});

}  // namespace depthstill
