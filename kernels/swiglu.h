// SwiGLU (Shazeer 2020):
//   y[r, c] = silu(a) * b,  a = x[r, c],  b = x[r, channels + c],  silu(a) = a * s(a),  s(a) = 1 / (1 + exp(-a))
//   x, dx (rows, 2 * channels)   y, dy (rows, channels)
// Gradient: dx[r, c] = dy * b * s * (1 + a * (1 - s))   dx[r, channels + c] = dy * silu(a)
// dx may be x. Elements of y moved: 3 forward, 5 in the gradient. Bound: memory.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {
namespace cpu {
template <class T>
void swiglu(Stream stream, int64_t rows, int64_t channels, const T* x, T* y);
template <class T>
void swiglu_grad(Stream stream, int64_t rows, int64_t channels, const T* x, const T* dy, T* dx);
}  // namespace cpu
namespace cuda {
template <class T>
void swiglu(Stream stream, int64_t rows, int64_t channels, const T* x, T* y);
template <class T>
void swiglu_grad(Stream stream, int64_t rows, int64_t channels, const T* x, const T* dy, T* dx);
}  // namespace cuda
}  // namespace depthstill
