// The last layer of a relative head: a 1 x 1 convolution to one channel with its activation, in fp32 whatever the type
// of the map below. A relative map is compared after division by its deviation in a small range, where a step of bf16
// is as large as what is learnt.
//   y[p] = act(bias + sum over c of x[p, c] weight[c])
//   x, dx (pixels, channels)   weight, dweight, below_sums (channels), bias, dbias (1), y, dy (pixels): float
// Gradient, with g = dy * slope(y):
//   dx = g weight   dweight = sum over p of g x   dbias = sum over p of g
// Where x is the output of an activation `below`, dx is multiplied by its slope, too: it is the gradient of what that
// activation was applied to, and below_sums are its sums over the pixels. Activations are kNone or kRelu.
// Bytes per pixel, B = channels * sizeof(T): B + 4 forward; 2 B + 8 in the gradient. Bound: memory.
#pragma once

#include <cstdint>

#include "kernels/activation.h"
#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

DS_HOST_DEVICE inline float head_activate(Activation kind, float v) {
  return kind == Activation::kRelu ? activate<Activation::kRelu>(v) : v;
}
// The gradient before an activation that gave y, of the gradient d behind it.
DS_HOST_DEVICE inline float head_slope(Activation kind, float y, float d) {
  return kind == Activation::kRelu ? d * activation_slope<Activation::kRelu>(y) : d;
}

// Outputs of the gradient, assigned; those that are null are left out. below_sums needs dx.
template <class T>
struct HeadConvGradients {
  T* dx = nullptr;
  float *dweight = nullptr, *dbias = nullptr;
  Activation below = Activation::kNone;
  float* below_sums = nullptr;
};

// y is read for the slope of an activation only.
namespace cpu {
template <class T>
void head_conv(Stream stream, int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
               const float* bias, float* y);
template <class T>
void head_conv_grad(Stream stream, int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
                    const float* y, const float* dy, const HeadConvGradients<T>& to);
}  // namespace cpu
namespace cuda {
template <class T>
void head_conv(Stream stream, int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
               const float* bias, float* y);
template <class T>
void head_conv_grad(Stream stream, int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
                    const float* y, const float* dy, const HeadConvGradients<T>& to);
}  // namespace cuda
}  // namespace depthstill
