// Feature alignment L_feat (Distill Any Depth, Sec. 3.3; Depth Anything, Eq. 8): over T tokens of C features,
//   cos_t = f_t . g_t / max(|f_t| |g_t|, 1e-8),  d_t = 1 - cos_t,  loss = 1 / T sum of d_t over the tokens with
//   d_t >= alpha: those that are alike enough already are left alone.
//   f, g, df (T, C), fp32 or bf16; products and sums are in fp32, the sum over the tokens in double, in a fixed order.
// Gradient of f, of the tokens that count: -(g / (|f| |g|) - cos f / |f|^2) / T; 0 where the product of the norms is at
// its bound, as a token of zeros has no direction. It reads the two factors that a token keeps.
//   df = -dloss (scale g - shrink f)
// Bytes: forward 2 T C, gradient 3 T C, of the type's size; 8 kept per token. Bound: memory.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

inline constexpr float kLeastNorms = 1e-8f;

// What the gradient needs of a token: both 0 where it has none.
struct TokenSlope {
  float scale, shrink;
};

// From a token's sums f.g, f.f and g.g: its distance, 0 where it does not count, and the slope.
struct TokenDistance {
  float distance;
  TokenSlope slope;

  DS_HOST_DEVICE static TokenDistance of(float fg, float ff, float gg, float alpha, int64_t tokens) {
    const float norms = std::sqrt(ff) * std::sqrt(gg), bounded = norms > kLeastNorms ? norms : kLeastNorms;
    const float cosine = fg / bounded, distance = 1.0f - cosine;
    if (!(distance >= alpha)) return {distance != distance ? distance : 0.0f, {0.0f, 0.0f}};
    if (norms <= kLeastNorms) return {distance, {0.0f, 0.0f}};
    const float part = 1.0f / static_cast<float>(tokens);
    return {distance, {part / norms, part * cosine / ff}};
  }
};

// slopes (T); loss and dloss (1). feature_cosine_grad assigns df.
namespace cpu {
template <class T>
void feature_cosine(Stream stream, int64_t tokens, int64_t channels, float alpha, const T* f, const T* g,
                    TokenSlope* slopes, float* loss);
template <class T>
void feature_cosine_grad(Stream stream, int64_t tokens, int64_t channels, const T* f, const T* g,
                         const TokenSlope* slopes, const float* dloss, T* df);
}  // namespace cpu
namespace cuda {
template <class T>
void feature_cosine(Stream stream, int64_t tokens, int64_t channels, float alpha, const T* f, const T* g,
                    TokenSlope* slopes, float* loss);
template <class T>
void feature_cosine_grad(Stream stream, int64_t tokens, int64_t channels, const T* f, const T* g,
                         const TokenSlope* slopes, const float* dloss, T* df);
}  // namespace cuda
}  // namespace depthstill
