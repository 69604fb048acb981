// y[n,p,q,o] = act(bias[o] + sum_{r,s,c} x[n, p*stride - pad_top + r*dilation, q*stride - pad_left + s*dilation, c] *
//                                        weight[o,r,s,c])
//   x (N, H, W, C)   weight (O, R, S, C) float   bias (O) float or null   y (N, P, Q, O)
// Gradients of a scalar with dz = dy * act'(y):
//   dx = sum over (r,s,o) of dz * weight   dweight = sum over (n,p,q) of dz * x   dbias = sum over (n,p,q) of dz
// Where x = below(u) is the output of an activation, the gradient can go on to u:
//   du = dx * below'(x)   dbias_below = sum over (n,h,w) of du
// CPU: our own tile kernels on AVX2, AVX-512 or AMX (in fp32 for stride 1; with AVX2 y and dx only of larger filters
// and 32 channels or more), else oneDNN. CUDA: cuDNN or, 1x1, cuBLASLt, in bf16 with weight and perhaps bias rounded to
// bf16. Bound: arithmetic, 2 * N*P*Q * O * R*S*C operations per product (three of them); memory for 1 x 1 filters with
// few channels. Bytes: x, weight and y once; in the gradient dz once per product, and before that y and dy read and dz
// written where there is an activation. With one below, x once more as dx is stored (CPU, and CUDA where cuDNN does not
// fuse it: dx and x read and du written). Between two batch norms, without bias and activation (batch_norm_conv2d), x
// stands for
//   z = act((x - mean) * rstd * weight + bias)
// of `norm`, if it has pointers, and the moments of y are taken for the one above. On CUDA cuDNN does either or both as
// it reads x (without padding) and writes y, where that is faster than our kernels before and after it: 2 maps of x and
// 1 of y less. z is needed again for dweight; keeping it costs a map of memory, making it again the time to write one.
//
// cuDNN's fused plan of a gradient (relu only) takes 0 for du where x <= 0, also from a dx that is not finite; else
// that is a product like everywhere, and what is not finite stays. It does not get lost: dweight is made from the same
// dz.
#pragma once

#include <cstdint>

#include "kernels/batch_norm.h"
#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

struct Conv2dShape {
  int64_t N = 0, H = 0, W = 0, C = 0;  // input
  int64_t O = 0, R = 1, S = 1;         // output channels, kernel height and width
  int stride = 1, dilation = 1;
  int pad_top = 0, pad_bottom = 0, pad_left = 0, pad_right = 0;

  int64_t P() const { return (H + pad_top + pad_bottom - dilation * (R - 1) - 1) / stride + 1; }
  int64_t Q() const { return (W + pad_left + pad_right - dilation * (S - 1) - 1) / stride + 1; }
  bool operator==(const Conv2dShape&) const = default;
};

// Gradients go here; null: not wanted. With below != none, dx is du; only then and with dx may dbias_below (C) be
// given.
template <class T>
struct Conv2dGradients {
  T* dx = nullptr;
  float *dweight = nullptr, *dbias = nullptr;
  Activation below = Activation::kNone;
  float* dbias_below = nullptr;
};

// conv2d_may_nest says whether a convolution and its gradients may be called within a parallel loop: oneDNN's may not.
// conv2d assigns y. conv2d_grad assigns those of `to` that are not null; it overwrites dy with dz (needed when act !=
// none). y is read only when act != none.
// batch_norm_conv2d assigns y and, unless null, moments (2, O): mean and biased variance of y; mean_guess (O), with
// moments, is near that mean, such as the running one (kernels/batch_norm.h). z is room for a map like x, or null where
// there is no norm; what is in it afterwards is undefined.
namespace cpu {
template <class T>
bool conv2d_may_nest(const Conv2dShape& shape);
template <class T>
void conv2d(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const float* bias,
            T* y);
template <class T>
void batch_norm_conv2d(Stream stream, const Conv2dShape& shape, const BatchNormInput& norm, const T* x,
                       const float* weight, const float* mean_guess, T* z, T* y, float* moments);
template <class T>
void conv2d_grad(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const T* y,
                 T* dy, const Conv2dGradients<T>& to);
}  // namespace cpu
namespace cuda {
template <class T>
void conv2d(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const float* bias,
            T* y);
template <class T>
void batch_norm_conv2d(Stream stream, const Conv2dShape& shape, const BatchNormInput& norm, const T* x,
                       const float* weight, const float* mean_guess, T* z, T* y, float* moments);
template <class T>
void conv2d_grad(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const T* y,
                 T* dy, const Conv2dGradients<T>& to);
}  // namespace cuda
}  // namespace depthstill
