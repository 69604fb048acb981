// The attention kernels on FMA units and those on tensor cores share these parts.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/core/fast_math.cuh"
#include "kernels/core/launch.h"

namespace depthstill::cuda {

// blockIdx.x, which the compiler asks for anew each time: kept through a loop, a place would take the registers of a
// block.
__device__ __forceinline__ int block_number() {
#if defined(__CUDACC__)
  int number;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(number));
  return number;
#else
  return static_cast<int>(blockIdx.x);
#endif
}

// A block's place: a head, of d channels, of an image, and a tile of its rows. It is counted in 32 bits where the
// registers decide how many blocks an SM holds (attention_mma.cu); nvcc spills those of attention.cu if it is there.
template <class Int>
struct Head {
  Int d, n, h, tile;

  __device__ Head(const AttentionShape& shape, Int tiles, Int channels) : d(channels) {
    const Int block = block_number(), heads = static_cast<Int>(shape.heads);
    tile = block % tiles;
    h = block / tiles % heads;
    n = block / tiles / heads;
  }
  __device__ int64_t stat(const AttentionShape& shape) const { return (n * shape.heads + h) * shape.T; }
  __device__ int64_t token(const AttentionShape& shape) const { return n * shape.T * shape.C + h * int64_t{d}; }
  // Part 0, 1, 2: q, k, v.
  __device__ int64_t part(const AttentionShape& shape, int i) const {
    return n * shape.T * 3 * shape.C + i * shape.C + h * int64_t{d};
  }
};

// Tiles of `rows` rows that cover a head's tokens, and blocks of one tile each.
inline int tiles_of(const AttentionShape& shape, int rows) { return static_cast<int>(blocks_for(shape.T, rows)); }
inline unsigned blocks_of(const AttentionShape& shape, int tiles) {
  return blocks_for(shape.N * shape.heads * tiles, 1);
}

// Attention on tensor cores needs bf16 and d == kMmaChannels. `scale` is that of the scores; delta (N, heads, T) is as
// in the header.
inline constexpr int kMmaChannels = 64;
void attention_mma(Stream stream, const AttentionShape& shape, float scale, const bf16* qkv, bf16* y, float* lse);
void attention_grad_mma(Stream stream, const AttentionShape& shape, float scale, const bf16* qkv, const float* lse,
                        const float* delta, const bf16* dy, bf16* dqkv);

}  // namespace depthstill::cuda
