// Sums over a whole map without atomics: every block of a grid of fixed size leaves its sums, then one block adds them
// up in order. The same bits from run to run and on every GPU.
#pragma once

#include "kernels/core/warp.cuh"

namespace depthstill {

// Adds `sums` up over the block and leaves them as entry `block` of partials (blocks, K), unless it is null. All
// threads of a block of kThreads must call it; two barriers.
template <int kThreads, int K>
__device__ static void store_partials(double (&sums)[K], int64_t block, double* partials) {
  block_sum<kThreads>(sums);
  if (thread_rank() != 0 || partials == nullptr) return;
#pragma unroll
  for (int k = 0; k < K; ++k) partials[K * block + k] = sums[k];
}

inline constexpr int kFinishThreads = 256;

namespace {

template <int K, class Finish>
__global__ void __launch_bounds__(kFinishThreads)
    finish_partials_kernel(int64_t blocks, const double* __restrict__ partials, Finish finish) {
  double sums[K] = {};
  for (int64_t b = threadIdx.x; b < blocks; b += kFinishThreads) {
#pragma unroll
    for (int k = 0; k < K; ++k) sums[k] += partials[K * b + k];
  }
  block_sum<kFinishThreads>(sums);
  if (threadIdx.x == 0) finish(sums);
}

}  // namespace

// finish(sums), with the K sums of all blocks, by one thread on the device.
template <int K, class Finish>
void finish_partials(LaunchStream at, int64_t blocks, const double* partials, const Finish& finish) {
  launch(finish_partials_kernel<K, Finish>, 1, kFinishThreads, 0, at, blocks, partials, finish);
}

}  // namespace depthstill
