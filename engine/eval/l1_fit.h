// Fits of least weighted absolute residuals, whose optimum no outlier drags along.
#pragma once

#include <span>
#include <vector>

namespace depthstill {

struct WeightedPair {
  double x, y, weight;  // weight > 0
};

// Argmin over t of sum weight |value - t|: the lower weighted median. values: not empty; their order is changed.
struct WeightedValue {
  double value, weight;
};
double weighted_median(std::span<WeightedValue> values);

// Argmin over s of sum weight |s x - y|. Throws Error if every x is 0.
double fit_scale_l1(std::span<const WeightedPair> pairs);

struct L1Line {
  double scale, shift;
};
// Argmin over s and t of sum weight |s x + t - y|, which is convex: a golden-section search over s around the weighted
// median, the best t for a given s. `slope`: a first guess. Not all x may be equal.
L1Line fit_line_l1(std::span<const WeightedPair> pairs, double slope);

}  // namespace depthstill
