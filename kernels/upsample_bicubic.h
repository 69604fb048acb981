// y[n,p,q,c] = sum over 4 x 4 taps of wy * wx * x[n,i,j,c]: bicubic resize, as PyTorch's upsample_bicubic2d with
// align_corners=False and no antialiasing.
//   x, dx (N, in_height, in_width, C)   y, dy (N, out_height, out_width, C)
// Per axis, output o reads four inputs around position s, scale being out / in unless another one is given:
//   s = (o + 1/2) / scale - 1/2,  f = floor(s),  t = s - f
//   input clamp(f - 1 + k, 0, in - 1) has the weight cubic(t + 1 - k), k = 0..3, where, with A = -0.75,
//   cubic(d) = (A + 2)|d|^3 - (A + 3)|d|^2 + 1         for |d| <= 1
//              A (|d|^3 - 5|d|^2 + 8|d| - 4)           for 1 < |d| < 2
// Gradient, as a gather over the outputs that read input (i, j): dx[n,i,j,c] = sum of wy * wx * dy[n,p,q,c].
// Bound: the caches, 16 loads per element. Memory moves x and y once, in the gradient dx and dy.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

// Positions are in double, so that every device picks the same taps.
struct BicubicAxis {
  int in = 0, out = 0;
  double inverse_scale = 1.0;  // inputs per output

  BicubicAxis(int in_size, int out_size, double scale)
      : in(in_size),
        out(out_size),
        inverse_scale(scale > 0.0 ? 1.0 / scale : static_cast<double>(in_size) / out_size) {}

  struct Taps {
    int first;  // position before clamping
    float weight[4];
  };
  DS_HOST_DEVICE Taps taps(int o) const {
    constexpr float A = -0.75f;
    const double s = (o + 0.5) * inverse_scale - 0.5, f = floor(s);
    const auto t = static_cast<float>(s - f), u = 1.0f - t;
    return {static_cast<int>(f) - 1,
            {((A * (t + 1.0f) - 5.0f * A) * (t + 1.0f) + 8.0f * A) * (t + 1.0f) - 4.0f * A,
             ((A + 2.0f) * t - (A + 3.0f)) * t * t + 1.0f, ((A + 2.0f) * u - (A + 3.0f)) * u * u + 1.0f,
             ((A * (u + 1.0f) - 5.0f * A) * (u + 1.0f) + 8.0f * A) * (u + 1.0f) - 4.0f * A}};
  }
  DS_HOST_DEVICE int clamp(int i) const { return i < 0 ? 0 : i < in ? i : in - 1; }

  // Output o reads input i with this weight.
  DS_HOST_DEVICE float weight(int o, int i) const {
    const Taps tap = taps(o);
    float sum = 0.0f;
    for (int k = 0; k < 4; ++k) sum += clamp(tap.first + k) == i ? tap.weight[k] : 0.0f;
    return sum;
  }

  // First and last output that can read input i; some of them may not. The inputs at the ends are read by all outputs
  // beyond them too.
  struct Range {
    int first, last;
  };
  DS_HOST_DEVICE Range readers(int i) const {
    const double low = (i - 1.5) / inverse_scale - 1.5, high = (i + 2.5) / inverse_scale + 0.5;
    Range range{0, out - 1};
    if (i > 0 && low > 0.0) range.first = low < out ? static_cast<int>(low) : out;
    if (i < in - 1 && high < out - 1) range.last = high < 0.0 ? -1 : static_cast<int>(high);
    return range;
  }
};

struct BicubicShape {
  int64_t N = 0, C = 0;
  BicubicAxis rows, cols;
};

namespace cpu {
template <class T>
void upsample_bicubic(Stream stream, const BicubicShape& shape, const T* x, T* y);
template <class T>
void upsample_bicubic_grad(Stream stream, const BicubicShape& shape, const T* dy, T* dx);
}  // namespace cpu
namespace cuda {
template <class T>
void upsample_bicubic(Stream stream, const BicubicShape& shape, const T* x, T* y);
template <class T>
void upsample_bicubic_grad(Stream stream, const BicubicShape& shape, const T* dy, T* dx);
}  // namespace cuda
}  // namespace depthstill
