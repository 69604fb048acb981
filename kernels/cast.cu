#include "kernels/cast.h"
#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 4;  // 16 bytes of floats, 8 of bf16

// y = x over n elements, in packs with a scalar tail. Moves 6 bytes per element. Bound: DRAM.
template <int kCount, class From, class To>
__global__ void __launch_bounds__(kThreads) cast_kernel(int64_t n, const From* __restrict__ x, To* __restrict__ y) {
  for (const int64_t i : grid_stride(n / kCount)) {
    float values[kCount];
    load_floats(x + i * kCount, values);
    store_floats(y + i * kCount, values);
  }
  const int64_t done = n / kCount * kCount;
  for (const int64_t i : grid_stride(n - done)) y[done + i] = static_cast<To>(static_cast<float>(x[done + i]));
}

}  // namespace

template <class From, class To>
void cast(Stream stream, int64_t n, const From* x, To* y) {
  const bool aligned = packable<kPack>(0, x) && packable<kPack>(0, y);
  const unsigned blocks = blocks_for(aligned ? n / kPack + n % kPack : n, kThreads, kLoopBlocks);
  launch(aligned ? cast_kernel<kPack, From, To> : cast_kernel<1, From, To>, blocks, kThreads, 0, stream, n, x, y);
}

template void cast(Stream, int64_t, const float*, bf16*);
template void cast(Stream, int64_t, const bf16*, float*);

}  // namespace depthstill::cuda
