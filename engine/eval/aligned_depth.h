// How numbers of a prediction become depth: scale and shift, what a protocol does to small inverse depth, its limits.
// By kLogLs a prediction <= 0, which has no logarithm, is depth 0 before the limits.
#pragma once

#include <cmath>
#include <limits>
#include <span>

#include "engine/eval/protocol.h"

namespace depthstill {

class AlignedDepth {
 public:
  // least_inverse: 1/m, what fitted inverse depth is raised to.
  AlignedDepth(const Protocol& protocol, const Fit& fit, double least_inverse)
      : scale_(fit.scale),
        shift_(fit.shift),
        least_inverse_(least_inverse),
        low_(protocol.rules->clamps ? static_cast<float>(protocol.min_depth) : -std::numeric_limits<float>::infinity()),
        high_(protocol.rules->clamps ? static_cast<float>(protocol.max_depth) : std::numeric_limits<float>::infinity()),
        inverse_(fits_inverse(protocol.alignment)),
        power_(protocol.alignment == Alignment::kLogLs) {}

  // Metres of several values, which may be in place; limited: 1 where a limit has changed one, else 0. NaN counts as
  // changed: inverse depth becomes its limit, depth stays NaN.
  void of(std::span<const float> values, float* depth, float* limited) const {
    if (inverse_) {
#pragma omp simd
      for (size_t i = 0; i < values.size(); ++i) {
        const double aligned = scale_ * static_cast<double>(values[i]) + shift_;
        limited[i] = static_cast<float>(aligned >= least_inverse_ ? 0.0 : 1.0);
        depth[i] = static_cast<float>(1 / (aligned >= least_inverse_ ? aligned : least_inverse_));
      }
    } else if (power_) {
      for (size_t i = 0; i < values.size(); ++i) {
        const double value = static_cast<double>(values[i]);
        limited[i] = 0.0f;
        depth[i] = static_cast<float>(value > 0 ? std::exp(scale_ * std::log(value) + shift_) : 0 * value);
      }
    } else {
#pragma omp simd
      for (size_t i = 0; i < values.size(); ++i) {
        limited[i] = 0.0f;
        depth[i] = static_cast<float>(scale_ * static_cast<double>(values[i]) + shift_);
      }
    }
    const float low = low_, high = high_;
#pragma omp simd
    for (size_t i = 0; i < values.size(); ++i) {
      const float raised = depth[i] < low ? low : depth[i], result = raised > high ? high : raised;
      limited[i] = result != depth[i] ? 1.0f : limited[i];
      depth[i] = result;
    }
  }

 private:
  double scale_, shift_, least_inverse_;
  float low_, high_;
  bool inverse_, power_;
};

}  // namespace depthstill
