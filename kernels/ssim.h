// Structural similarity (TIE-KD Eq. 6) of depth maps in metres: loss = 1 - mean S over the counted pixels,
//   S = (2 mx my + C1)(2 cxy + C2) / ((mx^2 + my^2 + C1)(vx + vy + C2)),   C1 = 0.01^2, C2 = 0.03^2 (data range 1)
// with means m, variances v and covariance c in an 11x11 Gaussian window, std 1.5, sum 1. The maps are rows
// [first_row, H), surrounded by zeros that keep their share of the window, as in the reference. With `mask`, pixels
// whose target is not finite and > 0 are treated like that surrounding: zero in both maps and not counted.
//   kCentred    moments about the mean: CPU in double, CUDA in float as variance within plus between
//               the window's rows; in float, too, the gradient only sums differences of depths
//   kReference  the published code: |v| and |c|, so that anti-correlated windows count as correlated. (Its float
//               E[xy] - mx my, off by up to 8e-3 at 80 m, is computed without that rounding.)
// Gradient, with a = dS/dmx at fixed v and c, b = dS/dvx, k = dS/dcxy and G* the window's convolution:
//   dS/dx = G*(a - 2 b mx - k my) + 2 x G*b + y G*k
// Bound: arithmetic, about 500 multiply-adds per pixel. Bytes per pixel: value and gradient 12, the factor of the
// gradient 8.
#pragma once

#include <cstdint>

#include "kernels/core/mean.h"
#include "kernels/depth_loss.h"

namespace depthstill {

enum class SsimMode : uint8_t { kCentred, kReference };

inline constexpr int kSsimRadius = 5;
inline constexpr int kSsimWindow = 2 * kSsimRadius + 1;
inline constexpr double kSsimStd = 1.5, kSsimC1 = 1e-4, kSsimC2 = 9e-4;

// result (2) = {1 - mean S, 1 / counted pixels}, zeros if none counts.
DS_HOST_DEVICE inline void finish_ssim(double sum, double count, float* result) {
  assign_mean(sum, count, result);
  if (count > 0) result[0] = static_cast<float>(1 - sum / count);
}

// ssim:      x (prediction), y (target) (N, H, W); assigns result (2) = {loss, 1 / counted pixels} and, unless null,
//            gradient (N, H, W) = d(sum of S)/dx, 0 above first_row
// ssim_grad: gradient becomes dloss * d loss/dx, in place; n = its elements, dloss (1)
namespace cpu {
void ssim(Stream stream, const DepthMapShape& shape, SsimMode mode, bool mask, const float* x, const float* y,
          float* gradient, float* result);
void ssim_grad(Stream stream, int64_t n, const float* result, const float* dloss, float* gradient);
}  // namespace cpu
namespace cuda {
void ssim(Stream stream, const DepthMapShape& shape, SsimMode mode, bool mask, const float* x, const float* y,
          float* gradient, float* result);
void ssim_grad(Stream stream, int64_t n, const float* result, const float* dloss, float* gradient);
}  // namespace cuda
}  // namespace depthstill
