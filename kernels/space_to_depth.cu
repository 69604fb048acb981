#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/space_to_depth.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// y[i, b, a, l] = x[i, a, b, l] with a < A, b < B and l < run: the wide map has A = block, B = Q, the deep one A = Q,
// B = block. One thread per pack of N elements of y. Precondition: run % N == 0. Moves 2 * sizeof(T) bytes per element;
// stores are contiguous, loads are in runs. Bound: DRAM.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    swap_runs_kernel(int64_t packs, int64_t A, int64_t B, int64_t run, const T* __restrict__ x, T* __restrict__ y) {
  for (const int64_t pack : grid_stride(packs)) {
    const int64_t at = pack * N / run, l = pack * N - at * run;
    const int64_t a = at % A, b = at / A % B, i = at / A / B;
    store_pack(y + pack * N, load_pack<N>(x + ((i * A + a) * B + b) * run + l));
  }
}

// depth_to_space with a bias takes the same walk over the wide map (N P, A = Q and B = block swapped back) and adds
// bias[l % C].
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    depth_to_space_bias_kernel(int64_t packs, SpaceToDepthShape s, const T* __restrict__ deep,
                               const float* __restrict__ bias, T* __restrict__ wide) {
  for (const int64_t pack : grid_stride(packs)) {
    const int64_t at = pack * N / s.run(), l = pack * N - at * s.run();
    const int64_t q = at % s.Q(), r = at / s.Q() % s.block, np = at / s.Q() / s.block;
    float values[N];
    load_floats(deep + ((np * s.Q() + q) * s.block + r) * s.run() + l, values);
#pragma unroll
    for (int k = 0; k < N; ++k) values[k] += bias[(l + k) % s.C];
    store_floats(wide + pack * N, values);
  }
}

template <class T>
void swap_runs(Stream stream, const SpaceToDepthShape& s, int64_t A, int64_t B, const T* x, T* y) {
  constexpr int kPack = kPackSize<T>;
  const bool packed = packable<kPack>(s.run(), x, y);
  const int64_t packs = s.numel() / (packed ? kPack : 1);
  launch(packed ? swap_runs_kernel<T, kPack> : swap_runs_kernel<T, 1>, blocks_for(packs, kThreads, kLoopBlocks),
         kThreads, 0, stream, packs, A, B, s.run(), x, y);
}

}  // namespace

template <class T>
void space_to_depth(Stream stream, const SpaceToDepthShape& shape, const T* wide, T* deep) {
  swap_runs(stream, shape, shape.block, shape.Q(), wide, deep);
}

template <class T>
void depth_to_space(Stream stream, const SpaceToDepthShape& s, const T* deep, const float* bias, T* wide) {
  if (bias == nullptr) return swap_runs(stream, s, s.Q(), s.block, deep, wide);
  constexpr int kPack = kPackSize<T>;
  const bool packed = packable<kPack>(s.run(), deep, wide);
  const int64_t packs = s.numel() / (packed ? kPack : 1);
  launch(packed ? depth_to_space_bias_kernel<T, kPack> : depth_to_space_bias_kernel<T, 1>,
         blocks_for(packs, kThreads, kLoopBlocks), kThreads, 0, stream, packs, s, deep, bias, wide);
}

template void space_to_depth(Stream, const SpaceToDepthShape&, const float*, float*);
template void space_to_depth(Stream, const SpaceToDepthShape&, const bf16*, bf16*);
template void depth_to_space(Stream, const SpaceToDepthShape&, const float*, const float*, float*);
template void depth_to_space(Stream, const SpaceToDepthShape&, const bf16*, const float*, bf16*);

}  // namespace depthstill::cuda
