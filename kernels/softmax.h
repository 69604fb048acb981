// y[r, i] = exp(x[r, i] - max_j x[r, j]) / sum_j exp(x[r, j] - max)      x, y, dy, dx (rows, cols)
// Gradient: dx = y * (dy - sum_j dy[r, j] y[r, j]). y may be x; dx may be dy.
// Bound: memory. Elements moved: 2 forward, 3 in the gradient.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {
namespace cpu {
template <class T>
void softmax(Stream stream, int64_t rows, int64_t cols, const T* x, T* y);
template <class T>
void softmax_grad(Stream stream, int64_t rows, int64_t cols, const T* y, const T* dy, T* dx);
}  // namespace cpu
namespace cuda {
template <class T>
void softmax(Stream stream, int64_t rows, int64_t cols, const T* x, T* y);
template <class T>
void softmax_grad(Stream stream, int64_t rows, int64_t cols, const T* y, const T* dy, T* dx);
}  // namespace cuda
}  // namespace depthstill
