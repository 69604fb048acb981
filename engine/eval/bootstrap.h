// Percentile bootstrap of the mean over images: how far a figure would move with other images, or other scenes, of the
// same kind.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/eval/metrics.h"

namespace depthstill {

struct BootstrapOptions {
  int64_t draws = 0;  // 0: none
  uint64_t seed = 0;
};

struct Interval {
  double low = 0, high = 0;
};

// The index that draw b takes at position j, of n: the upper 32 bits of splitmix64(seed xor splitmix64(2^32 b + j)),
// times n, divided by 2^32. It depends on nothing else, so that other programs can repeat the draws.
int64_t bootstrap_index(uint64_t seed, int64_t draw, int64_t position, int64_t n);

// What is drawn at once: the images for which this returns the same text. Empty: each image by itself.
using SceneOf = std::function<std::string(const std::string& image)>;

// Per field the 2.5 % and 97.5 % quantiles, with linear interpolation, of the means of all draws over the images that
// have metrics; every field sees the same draws. Of scenes, in the order of their first images, as many are drawn as
// there are, and their images are pooled. Empty without draws or images.
std::vector<Interval> bootstrap(std::span<const ImageMetrics> images, std::span<const MetricField> fields,
                                const BootstrapOptions& options, const SceneOf& scene_of = {});

}  // namespace depthstill
