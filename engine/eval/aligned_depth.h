// How numbers of a prediction become depth: scale and shift, what a protocol does to small inverse depth, its limits.
#pragma once

#include <algorithm>

#include "engine/eval/protocol.h"

namespace depthstill {

class AlignedDepth {
 public:
  // least_inverse: 1/m, what fitted inverse depth is raised to.
  AlignedDepth(const Protocol& protocol, const Fit& fit, double least_inverse)
      : scale_(fit.scale),
        shift_(fit.shift),
        least_inverse_(least_inverse),
        low_(static_cast<float>(protocol.min_depth)),
        high_(static_cast<float>(protocol.max_depth)),
        inverse_(protocol.alignment == Alignment::kDisparityLs),
        clamps_(protocol.rules->clamps) {}

  // Metres; `limited`: whether a limit has changed it.
  float operator()(float value, bool& limited) const {
    const double aligned = scale_ * static_cast<double>(value) + shift_;
    const bool raised = inverse_ && !(aligned >= least_inverse_);
    const auto depth = static_cast<float>(inverse_ ? 1 / (raised ? least_inverse_ : aligned) : aligned);
    const float result = clamps_ ? std::clamp(depth, low_, high_) : depth;
    limited = raised || result != depth;
    return result;
  }

 private:
  double scale_, shift_, least_inverse_;
  float low_, high_;
  bool inverse_, clamps_;
};

}  // namespace depthstill
