#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/embed_tokens.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// One thread per pack of N elements of y; grid-stride. Precondition: C % N == 0. pos stays in L2 over the images.
// Moves 2 * sizeof(T) bytes per element. Bound: DRAM.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    embed_tokens_kernel(TokenShape s, int64_t packs, const T* __restrict__ patches, const float* __restrict__ cls,
                        const float* __restrict__ pos, T* __restrict__ y) {
  const int64_t groups = s.C / N, rows = 1 + s.tokens;
  for (const int64_t i : grid_stride(packs)) {
    const int64_t c = i % groups * N, t = i / groups % rows, n = i / groups / rows;
    float token[N], position[N];
    if (t == 0) {
      load_parameters(cls + c, token);
    } else {
      load_floats(patches + (n * s.tokens + t - 1) * s.C + c, token);
    }
    load_parameters(pos + t * s.C + c, position);
#pragma unroll
    for (int k = 0; k < N; ++k) token[k] += position[k];
    store_floats(y + i * N, token);
  }
}

// One thread per pack of N elements of pos walks over the images, in order: dpatches is a copy of dy without its first
// tokens, dpos the sum. Precondition: C % N == 0. Moves 2 * sizeof(T) bytes per element of dy. Bound: DRAM.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    embed_tokens_grad_kernel(TokenShape s, int64_t packs, const T* __restrict__ dy, T* __restrict__ dpatches,
                             float* __restrict__ dcls, float* __restrict__ dpos) {
  const int64_t groups = s.C / N, rows = 1 + s.tokens;
  for (const int64_t i : grid_stride(packs)) {
    const int64_t c = i % groups * N, t = i / groups;
    float sum[N] = {};
    for (int64_t n = 0; n < s.N; ++n) {
      float g[N];
      load_floats(dy + (n * rows + t) * s.C + c, g);
      if (dpatches != nullptr && t > 0) store_floats(dpatches + (n * s.tokens + t - 1) * s.C + c, g);
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] += g[k];
    }
    if (dpos == nullptr) continue;
    store_parameters(dpos + i * N, sum);
    if (t == 0) store_parameters(dcls + c, sum);
  }
}

}  // namespace

template <class T>
void embed_tokens(Stream stream, const TokenShape& s, const T* patches, const float* cls, const float* pos, T* y) {
  constexpr int kPack = kPackSize<T>;
  const bool packed = packable<kPack>(s.C, patches, y) && packable<4>(s.C, cls, pos);
  const int64_t packs = s.N * (1 + s.tokens) * (s.C / (packed ? kPack : 1));
  launch(packed ? embed_tokens_kernel<T, kPack> : embed_tokens_kernel<T, 1>, blocks_for(packs, kThreads, kLoopBlocks),
         kThreads, 0, stream, s, packs, patches, cls, pos, y);
}

template <class T>
void embed_tokens_grad(Stream stream, const TokenShape& s, const T* dy, T* dpatches, float* dcls, float* dpos) {
  constexpr int kPack = kPackSize<T>;
  const bool packed = packable<kPack>(s.C, dy, dpatches) && packable<4>(s.C, dcls, dpos);
  const int64_t packs = (1 + s.tokens) * (s.C / (packed ? kPack : 1));
  launch(packed ? embed_tokens_grad_kernel<T, kPack> : embed_tokens_grad_kernel<T, 1>,
         blocks_for(packs, kThreads, kLoopBlocks), kThreads, 0, stream, s, packs, dy, dpatches, dcls, dpos);
}

template void embed_tokens(Stream, const TokenShape&, const float*, const float*, const float*, float*);
template void embed_tokens(Stream, const TokenShape&, const bf16*, const float*, const float*, bf16*);
template void embed_tokens_grad(Stream, const TokenShape&, const float*, float*, float*, float*);
template void embed_tokens_grad(Stream, const TokenShape&, const bf16*, bf16*, float*, float*);

}  // namespace depthstill::cuda
