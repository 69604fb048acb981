// Blocks of b x b pixels to channels and back. `wide` is (N, H, W, C), `deep` is (N, H/b, W/b, b*b*C):
//   deep[n,p,q,(r*b+s)*C+c] = wide[n,p*b+r,q*b+s,c]
//   space_to_depth: deep from wide           depth_to_space: wide from deep, plus bias[c] (C), float or null
// Each is the gradient of the other; dbias[c] is the sum of dwide over n, h and w (bias_activation_grad).
// A patch embedding is space_to_depth and a linear layer, a transposed convolution whose kernel is its stride a linear
// layer and depth_to_space. Either moves 2 * sizeof(T) bytes per element. Bound: memory.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

struct SpaceToDepthShape {
  int64_t N = 0, H = 0, W = 0, C = 0;  // size of the wide map; H and W are multiples of block
  int64_t block = 1;

  // The s and c of one r are neighbours on both sides: runs of this many elements, for which the wide map is
  // (N * P, block, Q, run) and the deep one (N * P, Q, block, run).
  DS_HOST_DEVICE int64_t run() const { return block * C; }
  DS_HOST_DEVICE int64_t P() const { return H / block; }
  DS_HOST_DEVICE int64_t Q() const { return W / block; }
  DS_HOST_DEVICE int64_t numel() const { return N * H * W * C; }
};

namespace cpu {
template <class T>
void space_to_depth(Stream stream, const SpaceToDepthShape& shape, const T* wide, T* deep);
template <class T>
void depth_to_space(Stream stream, const SpaceToDepthShape& shape, const T* deep, const float* bias, T* wide);
}  // namespace cpu
namespace cuda {
template <class T>
void space_to_depth(Stream stream, const SpaceToDepthShape& shape, const T* wide, T* deep);
template <class T>
void depth_to_space(Stream stream, const SpaceToDepthShape& shape, const T* deep, const float* bias, T* wide);
}  // namespace cuda
}  // namespace depthstill
