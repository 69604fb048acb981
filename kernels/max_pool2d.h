// Maximum over windows, in which positions outside of the map are ignored:
//   y[n,p,q,c] = max over the window's r, s of x[n, p*stride - pad + r, q*stride - pad + s, c]
//   x, dx (N, H, W, C)   y, dy (N, P, Q, C)   index (N, P, Q, C): r * kernel + s of the maximum
// Of equal values the first in row order counts; a NaN counts as larger than everything, the last one if several (as in
// PyTorch). Gradient, gathered by each input from the windows that cover it:
//   dx[n,h,w,c] = sum over (p,q) whose index points at (h,w) of dy[n,p,q,c]
// Bound: memory; x + y elements and one byte per y forward, the same backward.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

struct MaxPoolShape {
  int64_t N = 0, H = 0, W = 0, C = 0;  // input
  int kernel = 1, stride = 1;          // kernel <= 15, so that an index fits a byte
  int pad = 0;                         // <= kernel / 2, so that no window is empty

  DS_HOST_DEVICE int64_t P() const { return (H + 2 * pad - kernel) / stride + 1; }
  DS_HOST_DEVICE int64_t Q() const { return (W + 2 * pad - kernel) / stride + 1; }
};

// max_pool2d assigns y and, unless null, index. max_pool2d_grad assigns dx.
namespace cpu {
template <class T>
void max_pool2d(Stream stream, const MaxPoolShape& shape, const T* x, T* y, uint8_t* index);
template <class T>
void max_pool2d_grad(Stream stream, const MaxPoolShape& shape, const T* dy, const uint8_t* index, T* dx);
}  // namespace cpu
namespace cuda {
template <class T>
void max_pool2d(Stream stream, const MaxPoolShape& shape, const T* x, T* y, uint8_t* index);
template <class T>
void max_pool2d_grad(Stream stream, const MaxPoolShape& shape, const T* dy, const uint8_t* index, T* dx);
}  // namespace cuda
}  // namespace depthstill
