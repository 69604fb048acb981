// y[r, c] = act(y[r, c] + bias[c]) in place; y (rows, channels), bias (channels) float or null. The epilogue of a
// convolution whose library cannot fuse it; the gradient is bias_activation_grad (kernels/activation.h).
// Bound: memory. Elements moved: 2.
#pragma once

#include <cstdint>

#include "kernels/activation.h"
#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {
namespace cpu {
template <class T>
void bias_activation(Stream stream, int64_t rows, int channels, Activation act, const float* bias, T* y);
}
namespace cuda {
template <class T>
void bias_activation(Stream stream, int64_t rows, int channels, Activation act, const float* bias, T* y);
}
}  // namespace depthstill
