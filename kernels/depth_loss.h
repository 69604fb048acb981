// Losses on depth maps, over the counted pixels of the whole batch: rows >= first_row and, with `mask`, a target that
// is finite and > 0 (depth_target.h leaves no others within the model's range). n = their number; n = 0 gives loss 0
// and no gradient.
//   kMse  mean (p - y)^2                  dloss/dp = 2 (p - y) / n
//   kL1   mean |p - y|                    dloss/dp = sign(p - y) / n
//   kSi   sqrt(var + 0.15 mean(g)^2),     g = ln(p + 1e-3) - ln(y + 1e-3), var = sum (g - mean(g))^2 / (n - 1)
//         (scale-invariant, Eigen et al. with lambda = 0.85 as AdaBins, unscaled)
//         dloss/dp = ((g - mean(g)) / (n - 1) + 0.15 mean(g) / n) / (loss (p + 1e-3))
// Bound: memory. Bytes per pixel: 8 forward, 12 in the gradient.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"
#include "kernels/depth_target.h"

namespace depthstill {

enum class DepthLossKind : uint8_t { kSi, kMse, kL1 };

inline constexpr float kSiOffset = 1e-3f;      // metres, keeps the logarithm finite
inline constexpr double kSiMeanWeight = 0.15;  // 1 - lambda

struct DepthMapShape {
  int64_t N = 0, H = 0, W = 0;
  int64_t first_row = 0;  // rows above are left out
};

// Sums over the counted pixels -> result (4) = {loss, slope, mean, constant}: the gradient is
// slope * (e - mean) + constant, with e = g for kSi (divided by p + 1e-3), p - y for kMse, sign(p - y) for kL1.
DS_HOST_DEVICE inline void finish_depth_loss(DepthLossKind kind, double count, double sum, double sum_of_squares,
                                             float* result) {
  for (int i = 0; i < 4; ++i) result[i] = 0.0f;
  if (count == 0) return;
  const double mean = sum / count;
  if (kind != DepthLossKind::kSi) {  // `sum` is that of the losses
    result[0] = static_cast<float>(mean);
    result[1] = static_cast<float>((kind == DepthLossKind::kMse ? 2 : 1) / count);
    return;
  }
  const double others = count > 1 ? count - 1 : 1;
  const double squares = sum_of_squares - sum * mean;  // about the mean; rounding may leave it below 0
  const double variance = squares < 0 ? 0 : squares / others;
  const double loss = std::sqrt(variance + kSiMeanWeight * mean * mean);
  result[0] = static_cast<float>(loss);
  if (loss == 0) return;
  result[1] = static_cast<float>(1 / (loss * others));
  result[2] = static_cast<float>(mean);
  result[3] = static_cast<float>(kSiMeanWeight * mean / (loss * count));
}

// depth_loss:      pred, target (N, H, W); assigns result (4)
// depth_loss_grad: dpred = dloss * gradient, assigned everywhere; dloss (1)
namespace cpu {
void depth_loss(Stream stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                const float* target, float* result);
void depth_loss_grad(Stream stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                     const float* target, const float* result, const float* dloss, float* dpred);
}  // namespace cpu
namespace cuda {
void depth_loss(Stream stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                const float* target, float* result);
void depth_loss_grad(Stream stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                     const float* target, const float* result, const float* dloss, float* dpred);
}  // namespace cuda
}  // namespace depthstill
