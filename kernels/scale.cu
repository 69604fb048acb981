#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/scale.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// y = factor * x over n elements, in packs with a scalar tail; y may be x. Moves 2 * sizeof(T) bytes per element.
// Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads) scale_kernel(int64_t n, float factor, const T* x, T* y) {
  for (const int64_t i : grid_stride(n / kPack)) {
    float values[kPack];
    load_floats(x + i * kPack, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] *= factor;
    store_floats(y + i * kPack, values);
  }
  const int64_t done = n / kPack * kPack;
  for (const int64_t i : grid_stride(n - done)) {
    y[done + i] = static_cast<T>(factor * static_cast<float>(x[done + i]));
  }
}

}  // namespace

template <class T>
void scale(Stream stream, int64_t n, float factor, const T* x, T* y) {
  constexpr int kPack = kPackSize<T>;
  const bool aligned = packable<kPack>(0, x, y);
  const unsigned blocks = blocks_for(aligned ? n / kPack + n % kPack : n, kThreads, kLoopBlocks);
  launch(aligned ? scale_kernel<kPack, T> : scale_kernel<1, T>, blocks, kThreads, 0, stream, n, factor, x, y);
}

template void scale(Stream, int64_t, float, const float*, float*);
template void scale(Stream, int64_t, float, const bf16*, bf16*);

}  // namespace depthstill::cuda
