// y[r, o] = bias[o] + sum_i x[r, i] * weight[o, i]
//   x (rows, I)   weight (O, I) float   bias (O) float or null   y (rows, O)   all sizes at least 1
// Gradients:
//   dx[r, i]      = sum_o dy[r, o] * weight[o, i]
//   dweight[o, i] = sum_r dy[r, o] * x[r, i]
//   dbias[o]      = sum_r dy[r, o]
// A linear layer is a convolution of 1 x 1, and whatever computes those computes it. CPU: our tile kernels, or oneDNN.
// CUDA: cuBLASLt, or cuDNN where that is faster, in bf16 with weight and bias rounded to bf16.
// Bound: arithmetic, 2 * rows * I * O operations per product.
#pragma once

#include <cstdint>

#include "kernels/conv2d/conv2d.h"

namespace depthstill {

struct LinearShape {
  int64_t rows = 0, I = 0, O = 0;
  bool operator==(const LinearShape&) const = default;
  // One image of `rows` x 1 pixels.
  Conv2dShape as_convolution() const { return {.N = 1, .H = rows, .W = 1, .C = I, .O = O}; }
};

// linear assigns y. linear_grad assigns those of dx, dweight, dbias that are not null; x is read only for dweight and
// weight only for dx.
namespace cpu {
template <class T>
void linear(Stream stream, const LinearShape& shape, const T* x, const float* weight, const float* bias, T* y);
template <class T>
void linear_grad(Stream stream, const LinearShape& shape, const T* x, const float* weight, const T* dy, T* dx,
                 float* dweight, float* dbias);
}  // namespace cpu
namespace cuda {
template <class T>
void linear(Stream stream, const LinearShape& shape, const T* x, const float* weight, const float* bias, T* y);
template <class T>
void linear_grad(Stream stream, const LinearShape& shape, const T* x, const float* weight, const T* dy, T* dx,
                 float* dweight, float* dbias);
}  // namespace cuda
}  // namespace depthstill
