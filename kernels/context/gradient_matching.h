// Multi-scale gradient matching L_grad (Distill Any Depth, Eq. 9; MiDaS, Sec. 5): with R = N(x) - N(y), normalised in
// the root context of context_statistics,
//   loss = sum over scales k of 1 / n_k sum |R_q - R_p|
// over the pairs of counted neighbours p, q in a row or a column of the grid of rows and columns divisible by 2^k; n_k
// are the counted pixels of that grid in the whole batch. A scale without any adds nothing.
// Gradient: g = dloss/dR is a sum of signs over n_k, of at most 16 pairs a pixel; through t and s, as in context_loss.h
// with g for w sigma (their sum B is 0):
//   A = sum g (x - t) / s,  dx = 1 / s [g - p A / n sign(x - t) + [x = t] p A C / (n E)]
// Sums are in double, in an order that the shape alone decides.
// Bytes per pixel: forward 9 (1.4 times as much from L2), gradient 13 (1.9 times). Bound: memory.
#pragma once

#include "kernels/context/context_loss.h"

namespace depthstill {

inline constexpr int kGradientScales = 4;                          // at most
inline constexpr int kGradientReach = 1 << (kGradientScales - 1);  // rows or columns to the farthest neighbour

struct GradientMatchingOptions {
  int scales = kGradientScales;
  ContextDetach detach = ContextDetach::kNothing;
  bool reference = false;  // as the statistics were taken
};

// Results of the forward pass, which the gradient reads.
struct GradientMatchingResult {
  float* loss = nullptr;  // (1 + kGradientScales) = {loss, 1 / n_k}
  float* A = nullptr;     // (N)
};

// Of an image, or of a part of one: by scale, sum of |R_q - R_p|, the pixels that count, and A's sum times n_k.
struct GradientSums {
  double value[kGradientScales] = {}, count[kGradientScales] = {}, A[kGradientScales] = {};
};

// {loss, 1 / n_k} of the batch's sums.
DS_HOST_DEVICE inline void finish_gradient_matching(const GradientSums& batch, float* loss) {
  double total = 0;
  for (int k = 0; k < kGradientScales; ++k) {
    const double weight = batch.count[k] > 0 ? 1 / batch.count[k] : 0.0;
    total += batch.value[k] * weight;
    loss[1 + k] = static_cast<float>(weight);
  }
  loss[0] = static_cast<float>(total);
}
// A of an image.
DS_HOST_DEVICE inline float finish_gradient_image(const GradientSums& image, const GradientSums& batch) {
  double A = 0;
  for (int k = 0; k < kGradientScales; ++k) A += batch.count[k] > 0 ? image.A[k] / batch.count[k] : 0.0;
  return static_cast<float>(A);
}

// gradient_matching_grad assigns dx (N, H, W) = dloss * gradient; dloss (1)
namespace cpu {
void gradient_matching(Stream stream, const MapShape& shape, ContextKind kind, const GradientMatchingOptions& options,
                       const ContextInput& in, const GradientMatchingResult& result);
void gradient_matching_grad(Stream stream, const MapShape& shape, ContextKind kind,
                            const GradientMatchingOptions& options, const ContextInput& in,
                            const GradientMatchingResult& result, const float* dloss, float* dx);
}  // namespace cpu
namespace cuda {
void gradient_matching(Stream stream, const MapShape& shape, ContextKind kind, const GradientMatchingOptions& options,
                       const ContextInput& in, const GradientMatchingResult& result);
void gradient_matching_grad(Stream stream, const MapShape& shape, ContextKind kind,
                            const GradientMatchingOptions& options, const ContextInput& in,
                            const GradientMatchingResult& result, const float* dloss, float* dx);
}  // namespace cuda
}  // namespace depthstill
