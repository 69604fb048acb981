// y = x * Phi(x), the Gaussian error linear unit (Hendrycks and Gimpel 2016), over n elements:
//   kErf   Phi(x) = (1 + erf(x / sqrt 2)) / 2
//   kTanh  Phi(x) = (1 + tanh u) / 2 = 1 / (1 + exp(-2u)),  u = sqrt(2 / pi) * (x + 0.044715 x^3)
// Gradient: dx = dy * (Phi(x) + x * Phi'(x)) with
//   kErf   Phi' = exp(-x^2 / 2) / sqrt(2 pi)
//   kTanh  Phi' = 2 Phi (1 - Phi) u'
// y may be x; dx may be dy. Elements moved: 2 forward, 3 in the gradient. Bound: memory, on CPUs arithmetic.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

enum class GeluKind : uint8_t { kErf, kTanh };

// The formulas for one element, over the math functions of the caller: M::erf, M::exp and M::sigmoid.
template <GeluKind kind, class M>
DS_HOST_DEVICE inline float gelu_of(float x) {
  if constexpr (kind == GeluKind::kErf) return x * (0.5f + 0.5f * M::erf(0.70710678f * x));
  return x * M::sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
}
template <GeluKind kind, class M>
DS_HOST_DEVICE inline float gelu_slope(float x) {
  if constexpr (kind == GeluKind::kErf) {
    return 0.5f + 0.5f * M::erf(0.70710678f * x) + x * 0.39894228f * M::exp(-0.5f * x * x);
  }
  const float phi = M::sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
  return phi + x * phi * (1.0f - phi) * (1.59576912f + 0.21406445f * x * x);  // 2 u' = 1.59576912 (1 + 0.134145 x^2)
}

namespace cpu {
template <class T>
void gelu(Stream stream, int64_t n, GeluKind kind, const T* x, T* y);
template <class T>
void gelu_grad(Stream stream, int64_t n, GeluKind kind, const T* x, const T* dy, T* dx);
}  // namespace cpu
namespace cuda {
template <class T>
void gelu(Stream stream, int64_t n, GeluKind kind, const T* x, T* y);
template <class T>
void gelu_grad(Stream stream, int64_t n, GeluKind kind, const T* x, const T* dy, T* dx);
}  // namespace cuda
}  // namespace depthstill
