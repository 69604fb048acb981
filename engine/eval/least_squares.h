// Scale and shift of least squares, from sums that can be taken block by block.
#pragma once

#include <cstdint>
#include <span>

#include "engine/eval/alignment.h"

namespace depthstill {

// Count, means, and sums of products of deviations from them. Two such are merged without the cancellation of
// n sum p^2 - (sum p)^2 (Chan, Golub, LeVeque 1979), since predictions may have offsets of many times their range.
struct Moments {
  double n = 0, p = 0, y = 0, pp = 0, py = 0;
  Moments& operator+=(const Moments& other);
};

// Those over the pixels with mask != 0 of prediction p and y = truth; of 1 / truth if `alignment` fits inverse depth,
// of ln p and ln truth by kLogLs.
Moments moments_of(std::span<const float> prediction, std::span<const float> truth, std::span<const uint8_t> mask,
                   Alignment alignment);

// Of all lines through (p, y), that of least norm.
Fit least_norm_line(double p, double y);

// The line of least sum (scale p + shift - y)^2, that of least norm if all p are equal. `moments`: of a pixel at least.
Fit line_of(const Moments& moments);

}  // namespace depthstill
