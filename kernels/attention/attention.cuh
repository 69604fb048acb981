// The attention kernels on FMA units and those on tensor cores share these parts.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/core/fast_math.cuh"
#include "kernels/core/launch.h"

namespace depthstill::cuda {

// A block's place: a head of an image, and a tile of its rows.
struct Head {
  int64_t n, h, tile;

  __device__ Head(const AttentionShape& shape, int64_t tiles) {
    const int64_t block = blockIdx.x;
    tile = block % tiles;
    h = block / tiles % shape.heads;
    n = block / tiles / shape.heads;
  }
  __device__ int64_t stat(const AttentionShape& shape) const { return (n * shape.heads + h) * shape.T; }
  __device__ int64_t token(const AttentionShape& shape) const { return n * shape.T * shape.C + h * shape.d(); }
  // Part 0, 1, 2: q, k, v.
  __device__ int64_t part(const AttentionShape& shape, int i) const {
    return n * shape.T * 3 * shape.C + i * shape.C + h * shape.d();
  }
};

// Attention on tensor cores needs bf16 and d == kMmaChannels. `scale` is that of the scores; delta (N, heads, T) is as
// in the header.
inline constexpr int kMmaChannels = 64;
void attention_mma(Stream stream, const AttentionShape& shape, float scale, const bf16* qkv, bf16* y, float* lse);
void attention_grad_mma(Stream stream, const AttentionShape& shape, float scale, const bf16* qkv, const float* lse,
                        const float* delta, const bf16* dy, bf16* dqkv);

}  // namespace depthstill::cuda
