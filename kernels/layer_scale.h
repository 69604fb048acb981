// y = x + gamma[c] * branch: a residual whose branch is scaled per channel (Touvron et al. 2021).
//   x, branch, y, dy, dbranch (rows, channels)   gamma, dgamma (channels) float
// Gradient: dx = dy   dbranch = gamma * dy   dgamma = sum over rows of dy * branch
// y may be x or branch; dbranch may be dy or branch. Elements moved: 3 forward, 3 in the gradient. Bound: memory.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

// layer_scale_grad assigns those of dbranch and dgamma that are not null; branch is read only for dgamma.
namespace cpu {
template <class T>
void layer_scale(Stream stream, int64_t rows, int64_t channels, const T* x, const T* branch, const float* gamma, T* y);
template <class T>
void layer_scale_grad(Stream stream, int64_t rows, int64_t channels, const T* branch, const float* gamma, const T* dy,
                      T* dbranch, float* dgamma);
}  // namespace cpu
namespace cuda {
template <class T>
void layer_scale(Stream stream, int64_t rows, int64_t channels, const T* x, const T* branch, const float* gamma, T* y);
template <class T>
void layer_scale_grad(Stream stream, int64_t rows, int64_t channels, const T* branch, const float* gamma, const T* dy,
                      T* dbranch, float* dgamma);
}  // namespace cuda
}  // namespace depthstill
