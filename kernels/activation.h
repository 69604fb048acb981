// Activations that producers fuse into their epilogue. Each derivative is a function of the output y alone, so that
// backward needs no saved input: relu y>0, relu6 0<y<6, sigmoid y(1-y).
// Bound: memory. Elements moved: 2 forward, 3 in the gradient (y and dy read, dx written), 4 of two gradients.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

enum class Activation : uint8_t { kNone, kRelu, kRelu6, kSigmoid };

template <Activation kind>
DS_HOST_DEVICE inline float activate(float x) {
  if constexpr (kind == Activation::kRelu) return x > 0.0f ? x : (x == x ? 0.0f : x);  // NaN passes
  if constexpr (kind == Activation::kRelu6) return x > 0.0f ? (x < 6.0f ? x : 6.0f) : (x == x ? 0.0f : x);
  if constexpr (kind == Activation::kSigmoid) return 1.0f / (1.0f + std::exp(-x));
  return x;
}

// d activate(x) / dx, from y = activate(x).
template <Activation kind>
DS_HOST_DEVICE inline float activation_slope(float y) {
  if constexpr (kind == Activation::kRelu) return y > 0.0f ? 1.0f : 0.0f;
  if constexpr (kind == Activation::kRelu6) return y > 0.0f && y < 6.0f ? 1.0f : 0.0f;
  if constexpr (kind == Activation::kSigmoid) return y * (1.0f - y);
  return 1.0f;
}

// Calls f.operator()<kind>() with the activation as a template argument.
template <class F>
void visit(Activation kind, F f) {
  switch (kind) {
    case Activation::kNone:
      return f.template operator()<Activation::kNone>();
    case Activation::kRelu:
      return f.template operator()<Activation::kRelu>();
    case Activation::kRelu6:
      return f.template operator()<Activation::kRelu6>();
    case Activation::kSigmoid:
      return f.template operator()<Activation::kSigmoid>();
  }
}

// activation:      y = f(x)                         all arrays of n elements; y may be x
// activation_grad: dx = (dy + second) * slope(y)    second may be null; dx may be dy or second
// bias_activation_grad: rows x channels; dx = dy * slope(y), dbias[c] = sum over rows of dx[., c]; dx may be dy;
//                  dbias may be null
namespace cpu {
template <class T>
void activation(Stream stream, int64_t n, Activation kind, const T* x, T* y);
template <class T>
void activation_grad(Stream stream, int64_t n, Activation kind, const T* y, const T* dy, const T* second, T* dx);
template <class T>
void bias_activation_grad(Stream stream, int64_t rows, int channels, Activation kind, const T* y, const T* dy, T* dx,
                          float* dbias);
}  // namespace cpu
namespace cuda {
template <class T>
void activation(Stream stream, int64_t n, Activation kind, const T* x, T* y);
template <class T>
void activation_grad(Stream stream, int64_t n, Activation kind, const T* y, const T* dy, const T* second, T* dx);
template <class T>
void bias_activation_grad(Stream stream, int64_t rows, int channels, Activation kind, const T* y, const T* dy, T* dx,
                          float* dbias);
}  // namespace cuda
}  // namespace depthstill
