// Reductions within a warp and within a block. The order of the additions is fixed, so results are reproducible.
//
// warp_*:  all 32 lanes of the warp must call it; every lane gets the result, of warp_reduce<kLanes> that of its kLanes
//          neighbouring lanes (a power of two).
// block_*: all threads of a block of kThreads threads (any shape, kThreads % 32 == 0) must call it, unconditionally;
//          every thread gets the result. Two barriers each, so calls may follow one another.
#pragma once

#include "kernels/core/launch.h"

namespace depthstill {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// Position of the thread in its block, in the order in which warps are formed.
__device__ inline int thread_rank() {
  return static_cast<int>((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
}

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
// Unlike fmaxf and fminf, these return NaN when either argument is NaN.
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};
struct Min {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};

template <int kLanes = kWarpSize, class T, class Combine>
__device__ inline T warp_reduce(T value, Combine combine) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

template <class T>
__device__ inline T warp_sum(T value) {
  return warp_reduce(value, Sum{});
}
template <class T>
__device__ inline T warp_max(T value) {
  return warp_reduce(value, Max{});
}
template <class T>
__device__ inline T warp_min(T value) {
  return warp_reduce(value, Min{});
}

// Reduces N values at once: values[k] becomes the block's combination of values[k].
template <int kThreads, int N, class T, class Combine>
__device__ static void block_reduce(T (&values)[N], Combine combine) {
  static_assert(kThreads % kWarpSize == 0 && kThreads <= kWarpSize * kWarpSize, "block_reduce: whole warps only");
  constexpr int kWarps = kThreads / kWarpSize;
  __shared__ T partial[N][kWarps];
  const int warp = thread_rank() / kWarpSize, lane = thread_rank() % kWarpSize;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const T sum = warp_reduce(values[k], combine);
    if (lane == 0) partial[k][warp] = sum;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < N; ++k) {
    values[k] = partial[k][0];
    for (int w = 1; w < kWarps; ++w) values[k] = combine(values[k], partial[k][w]);
  }
  __syncthreads();
}

template <int kThreads, int N, class T>
__device__ static void block_sum(T (&values)[N]) {
  block_reduce<kThreads>(values, Sum{});
}
template <int kThreads, class T>
__device__ static T block_sum(T value) {
  T values[1] = {value};
  block_reduce<kThreads>(values, Sum{});
  return values[0];
}
template <int kThreads, class T>
__device__ static T block_max(T value) {
  T values[1] = {value};
  block_reduce<kThreads>(values, Max{});
  return values[0];
}
template <int kThreads, class T>
__device__ static T block_min(T value) {
  T values[1] = {value};
  block_reduce<kThreads>(values, Min{});
  return values[0];
}

}  // namespace depthstill
