#include "kernels/add.h"
#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// y = a + b. One thread per pack of N elements, the last n % N elements one by one: no precondition on n.
// Reads a and b and writes y once: 12 B per float element, 6 B per bf16. Bound: memory.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) add_kernel(int64_t n, const T* a, const T* b, T* y) {
  const int64_t packs = n / N;
  for (const int64_t i : grid_stride(packs)) {
    float left[N], right[N];
    load_floats(a + i * N, left);
    load_floats(b + i * N, right);
#pragma unroll
    for (int k = 0; k < N; ++k) left[k] += right[k];
    store_floats(y + i * N, left);
  }
  for (const int64_t i : grid_stride(n - packs * N)) {
    const int64_t k = packs * N + i;
    y[k] = static_cast<T>(static_cast<float>(a[k]) + static_cast<float>(b[k]));
  }
}

}  // namespace

template <class T>
void add(Stream stream, int64_t n, const T* a, const T* b, T* y) {
  constexpr int kPack = kPackSize<T>;
  if (packable<kPack>(0, a, b, y)) {
    launch(add_kernel<T, kPack>, blocks_for((n + kPack - 1) / kPack, kThreads), kThreads, 0, stream, n, a, b, y);
  } else {
    launch(add_kernel<T, 1>, blocks_for(n, kThreads), kThreads, 0, stream, n, a, b, y);
  }
}

template void add(Stream, int64_t, const float*, const float*, float*);
template void add(Stream, int64_t, const bf16*, const bf16*, bf16*);

}  // namespace depthstill::cuda
