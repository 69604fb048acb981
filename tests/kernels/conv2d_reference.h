// A convolution by its definition, for tests of what computes it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/conv2d/conv2d.h"

namespace depthstill::kernel_test {

// Calls f(x index, weight index, y index) for every product.
template <class F>
void for_each_product(const Conv2dShape& s, const F& f) {
  for (int64_t pixel = 0; pixel < s.N * s.P() * s.Q(); ++pixel) {
    const int64_t n = pixel / (s.P() * s.Q()), p = pixel / s.Q() % s.P(), q = pixel % s.Q();
    for (int64_t tap = 0; tap < s.R * s.S; ++tap) {
      const int64_t h = p * s.stride - s.pad_top + tap / s.S * s.dilation;
      const int64_t w = q * s.stride - s.pad_left + tap % s.S * s.dilation;
      if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
      for (int64_t o = 0; o < s.O; ++o) {
        for (int64_t c = 0; c < s.C; ++c)
          f(static_cast<size_t>(((n * s.H + h) * s.W + w) * s.C + c),
            static_cast<size_t>((o * s.R * s.S + tap) * s.C + c), static_cast<size_t>(pixel * s.O + o));
      }
    }
  }
}

inline double activated(Activation act, double v) {
  switch (act) {
    case Activation::kNone:
      return v;
    case Activation::kRelu:
      return std::max(v, 0.0);
    case Activation::kRelu6:
      return std::clamp(v, 0.0, 6.0);
    case Activation::kSigmoid:
      return 1.0 / (1.0 + std::exp(-v));
  }
  return 0.0;
}
// The slope follows from the activation's output y.
inline double slope(Activation act, double y) {
  switch (act) {
    case Activation::kNone:
      return 1.0;
    case Activation::kRelu:
      return y > 0.0 ? 1.0 : 0.0;
    case Activation::kRelu6:
      return y > 0.0 && y < 6.0 ? 1.0 : 0.0;
    case Activation::kSigmoid:
      return y * (1.0 - y);
  }
  return 0.0;
}

}  // namespace depthstill::kernel_test
