// Mean or sum of the elements that a mask lets through, and the mask of a depth map.
//   depth_mask   mask = 1 in rows >= first_row, with `only_valid` where the depth is finite and > 0; else 0
//   masked_mean  y = sum over counted i of x_i, and with `mean` divided by their number n; no mask: all count. n = 0: 0
//                dx_i = dy (/ n) where i counts, else 0
// What does not count is not read into the result: it may be NaN. Sums are in double, in a fixed order.
// Bound: memory. Bytes per element: mask 5; forward 5, gradient 5.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/depth_loss.h"

namespace depthstill {

// result (2) = {y, dx_i / dy where i counts}.
inline DS_HOST_DEVICE void finish_masked_mean(bool mean, double count, double sum, float* result) {
  const double factor = count == 0 ? 0.0 : mean ? 1.0 / count : 1.0;
  result[0] = static_cast<float>(sum * factor);
  result[1] = static_cast<float>(factor);
}

// depth_mask:       depth, mask (N, H, W)
// masked_mean:      x (n); mask (n) or null; assigns result (2)
// masked_mean_grad: dy (1); assigns dx (n)
namespace cpu {
void depth_mask(Stream stream, const DepthMapShape& shape, bool only_valid, const float* depth, uint8_t* mask);
void masked_mean(Stream stream, bool mean, int64_t n, const float* x, const uint8_t* mask, float* result);
void masked_mean_grad(Stream stream, int64_t n, const uint8_t* mask, const float* result, const float* dy, float* dx);
}  // namespace cpu
namespace cuda {
void depth_mask(Stream stream, const DepthMapShape& shape, bool only_valid, const float* depth, uint8_t* mask);
void masked_mean(Stream stream, bool mean, int64_t n, const float* x, const uint8_t* mask, float* result);
void masked_mean_grad(Stream stream, int64_t n, const uint8_t* mask, const float* result, const float* dy, float* dx);
}  // namespace cuda
}  // namespace depthstill
