// Percentile bootstrap of the mean over images: how far a figure would move with other images of the same kind.
#pragma once

#include <cstdint>
#include <span>
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

// Per field the 2.5 % and 97.5 % quantiles, with linear interpolation, of the means of all draws over the images that
// have metrics; every field sees the same draws. Empty without draws or images.
std::vector<Interval> bootstrap(std::span<const ImageMetrics> images, std::span<const MetricField> fields,
                                const BootstrapOptions& options);

}  // namespace depthstill
