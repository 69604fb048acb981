#include "kernels/core/warp_rows.cuh"
#include "kernels/swiglu.h"

namespace depthstill::cuda {
namespace {

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// One warp per row, kRowsPerBlock rows per block; precondition channels % kPack == 0. Moves 3 * sizeof(T) bytes per
// element of y. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads) swiglu_kernel(int64_t rows, int64_t channels, const T* x, T* y) {
  const WarpRow<kPack> at;
  if (at.row >= rows) return;
  const T* from = x + at.row * 2 * channels;
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    float a[kPack], b[kPack];
    load_floats(from + c, a);
    load_floats(from + channels + c, b);
#pragma unroll
    for (int k = 0; k < kPack; ++k) a[k] *= sigmoid(a[k]) * b[k];
    store_floats(y + at.row * channels + c, a);
  }
}

// The same geometry; 5 * sizeof(T) bytes per element of y. dx may be x. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads)
    swiglu_grad_kernel(int64_t rows, int64_t channels, const T* x, const T* dy, T* dx) {
  const WarpRow<kPack> at;
  if (at.row >= rows) return;
  const int64_t begin = at.row * 2 * channels;
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    float a[kPack], b[kPack], g[kPack];
    load_floats(x + begin + c, a);
    load_floats(x + begin + channels + c, b);
    load_floats(dy + at.row * channels + c, g);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const float s = sigmoid(a[k]);
      b[k] *= g[k] * s * (1.0f + a[k] * (1.0f - s));  // becomes the gradient of a, and a that of b
      a[k] *= g[k] * s;
    }
    store_floats(dx + begin + c, b);
    store_floats(dx + begin + channels + c, a);
  }
}

}  // namespace

template <class T>
void swiglu(Stream stream, int64_t rows, int64_t channels, const T* x, T* y) {
  constexpr int kPack = kPackSize<T>;
  launch(packable<kPack>(channels, x, y) ? swiglu_kernel<kPack, T> : swiglu_kernel<1, T>, row_blocks(rows), kRowThreads,
         0, stream, rows, channels, x, y);
}

template <class T>
void swiglu_grad(Stream stream, int64_t rows, int64_t channels, const T* x, const T* dy, T* dx) {
  constexpr int kPack = kPackSize<T>;
  launch(packable<kPack>(channels, x, dy, dx) ? swiglu_grad_kernel<kPack, T> : swiglu_grad_kernel<1, T>,
         row_blocks(rows), kRowThreads, 0, stream, rows, channels, x, dy, dx);
}

template void swiglu(Stream, int64_t, int64_t, const float*, float*);
template void swiglu(Stream, int64_t, int64_t, const bf16*, bf16*);
template void swiglu_grad(Stream, int64_t, int64_t, const float*, const float*, float*);
template void swiglu_grad(Stream, int64_t, int64_t, const bf16*, const bf16*, bf16*);

}  // namespace depthstill::cuda
