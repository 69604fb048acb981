// One K x K filter per channel, K = 3 or 5, on a map with pad_top rows and pad_left columns of zeros before it and as
// many after it as the output needs:
//   y[n,p,q,c] = sum_{r,s} x[n, p*stride + r*dilation - pad_top, q*stride + s*dilation - pad_left, c] * weight[r,s,c]
//   x (N, H, W, C)   weight (K, K, C) float   y (N, P, Q, C), P = ceil(H / stride), Q = ceil(W / stride)
// Gradients:
//   dx[n,h,w,c]     = sum_{r,s} dy[n, (h + pad_top - r*dilation) / stride, (w + pad_left - s*dilation) / stride, c] *
//                     weight[r,s,c] over the taps whose divisions are exact and inside the map
//   dweight[r,s,c]  = sum_{n,p,q} dy[n,p,q,c] *
//                     x[n, p*stride + r*dilation - pad_top, q*stride + s*dilation - pad_left, c]
// Before it there may be a batch norm (BatchNormInput, kernels/batch_norm.h): then x stands for
//   z = act((x - mean) * rstd * weight + bias)
// which is computed as x is read, in float, and never stored; the padding is zeros of z. Its gradient goes through the
// activation as well: dx is then that of the argument of act,
//   dx * act'(z)
// and comes with the sums that batch_norm_grad_of_sums wants. After the convolution there may be the statistics that a
// batch norm of y needs.
//
// Bound: memory, 2 * K^2 operations per element and pass. Maps moved, at stride 1: forward 2, gradients 3 (x and dy
// read, dx written). From the statistics of x to the normalised y, in training, convolution and batch norms move 8 maps
// one by one (1 + 2, 2, 1 + 2) and 5 with the first inside and the moments of the second taken along (1, 2, 2); and z
// is not kept. From dy to the gradient of x the convolution and the batch norm before it move 6 maps (3 + 3); one by
// one, with dx and dweight apart, it would be 9 (2 + 2 + 5).
#pragma once

#include <cstdint>

#include "kernels/batch_norm.h"
#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

struct DepthwiseShape {
  int64_t N = 0, H = 0, W = 0, C = 0;  // input
  int stride = 1;                      // 1 or 2
  int dilation = 1;
  int pad_top = 1, pad_left = 1;
  int kernel = 3;  // 3 or 5

  DS_HOST_DEVICE int64_t P() const { return (H - 1) / stride + 1; }
  DS_HOST_DEVICE int64_t Q() const { return (W - 1) / stride + 1; }
};

// All outputs are assigned. moments (2, C), or null: mean and biased variance of y as it is stored, per channel. They
// are summed as differences to values of y itself, so that a mean far from zero does not cancel the variance.
// dx and dweight may be null; sums (2, C), null without dx or a batch norm: of dx as it is stored, and of it times
// x - mean.
namespace cpu {
template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const float* weight,
                      T* y, float* moments);
template <class T>
void depthwise_conv2d_grad(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const T* dy,
                           const float* weight, T* dx, float* dweight, float* sums);
}  // namespace cpu
namespace cuda {
template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const float* weight,
                      T* y, float* moments);
template <class T>
void depthwise_conv2d_grad(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const T* dy,
                           const float* weight, T* dx, float* dweight, float* sums);
}  // namespace cuda
}  // namespace depthstill
