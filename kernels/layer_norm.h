// Normalisation of each row, per row r and channel c (Ba et al. 2016):
//   y = h * weight[c] + bias[c],  h = (x - mean[r]) * rstd[r],  rstd = 1 / sqrt(var + eps), var biased
//   x, y, dy, dx (rows, channels)   weight, bias, dweight, dbias (channels) float   mean, rstd (rows) float
// Gradient, with g = dy * weight and <.> the mean over the channels of a row:
//   dx = rstd * (g - <g> - h * <g * h>)   dweight = sum over rows of dy * h   dbias = sum over rows of dy
// The variance is taken from x - mean, so that a large mean does not cancel it.
// Bound: memory. Elements moved: 2 forward, 3 in the gradient on the CPU, 5 on CUDA (x and dy once more for dweight).
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

// The gradient reads these besides dy.
template <class T>
struct LayerNormInput {
  const T* x = nullptr;
  const float *weight = nullptr, *mean = nullptr, *rstd = nullptr;
};

// layer_norm assigns y, mean and rstd. layer_norm_grad assigns dx unless it is null, and dweight and dbias unless both
// are null; dx may be dy.
namespace cpu {
template <class T>
void layer_norm(Stream stream, int64_t rows, int64_t channels, float eps, const T* x, const float* weight,
                const float* bias, T* y, float* mean, float* rstd);
template <class T>
void layer_norm_grad(Stream stream, int64_t rows, int64_t channels, const LayerNormInput<T>& input, const T* dy, T* dx,
                     float* dweight, float* dbias);
}  // namespace cpu
namespace cuda {
template <class T>
void layer_norm(Stream stream, int64_t rows, int64_t channels, float eps, const T* x, const float* weight,
                const float* bias, T* y, float* mean, float* rstd);
template <class T>
void layer_norm_grad(Stream stream, int64_t rows, int64_t channels, const LayerNormInput<T>& input, const T* dy, T* dx,
                     float* dweight, float* dbias);
}  // namespace cuda
}  // namespace depthstill
