// One 3x3 filter per channel with padding = dilation:
//   y[n,p,q,c] = sum_{r,s} x[n, p*stride + (r-1)*dilation, q*stride + (s-1)*dilation, c] * weight[r,s,c]
//   x (N, H, W, C)   weight (3, 3, C) float   y (N, P, Q, C), P = ceil(H / stride), Q = ceil(W / stride)
// Gradients:
//   dx[n,h,w,c]     = sum_{r,s} dy[n, (h - (r-1)*dilation) / stride, (w - (s-1)*dilation) / stride, c] * weight[r,s,c]
//                     over the taps whose divisions are exact and inside the map
//   dweight[r,s,c]  = sum_{n,p,q} dy[n,p,q,c] * x[n, p*stride + (r-1)*dilation, q*stride + (s-1)*dilation, c]
// Bound: memory. Each of the three moves two maps once: 2 * sizeof(T) bytes per element at stride 1 for 9
// multiply-adds.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/stream.h"

namespace depthstill {

struct DepthwiseShape {
  int64_t N = 0, H = 0, W = 0, C = 0;  // input
  int stride = 1;                      // 1 or 2
  int dilation = 1;

  DS_HOST_DEVICE int64_t P() const { return (H - 1) / stride + 1; }
  DS_HOST_DEVICE int64_t Q() const { return (W - 1) / stride + 1; }
};

// All outputs are assigned.
namespace cpu {
template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, const T* x, const float* weight, T* y);
template <class T>
void depthwise_conv2d_dx(Stream stream, const DepthwiseShape& shape, const T* dy, const float* weight, T* dx);
template <class T>
void depthwise_conv2d_dweight(Stream stream, const DepthwiseShape& shape, const T* x, const T* dy, float* dweight);
}  // namespace cpu
namespace cuda {
template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, const T* x, const float* weight, T* y);
template <class T>
void depthwise_conv2d_dx(Stream stream, const DepthwiseShape& shape, const T* dy, const float* weight, T* dx);
template <class T>
void depthwise_conv2d_dweight(Stream stream, const DepthwiseShape& shape, const T* x, const T* dy, float* dweight);
}  // namespace cuda
}  // namespace depthstill
