#include <cmath>

#include "kernels/core/warp_rows.cuh"
#include "kernels/softmax.h"

namespace depthstill::cuda {
namespace {

// One warp per row, kRowsPerBlock rows per block. Three passes over the row, of which the first comes from DRAM and the
// others from L1: 2 * sizeof(T) bytes per element. Bound: DRAM up to rows of about 1,000 elements.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads) softmax_kernel(int64_t rows, int64_t cols, const T* x, T* y) {
  const WarpRow<kPack> at;
  if (at.row >= rows) return;
  float values[kPack];
  float max = -INFINITY, sum = 0.0f;
  for (int64_t i = at.first; i < cols; i += at.kStep) {
    load_floats(x + at.row * cols + i, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) max = Max{}(max, values[k]);
  }
  max = warp_max(max);
  for (int64_t i = at.first; i < cols; i += at.kStep) {
    load_floats(x + at.row * cols + i, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum += std::exp(values[k] - max);
  }
  const float inverse = 1.0f / warp_sum(sum);
  for (int64_t i = at.first; i < cols; i += at.kStep) {
    load_floats(x + at.row * cols + i, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] = std::exp(values[k] - max) * inverse;
    store_floats(y + at.row * cols + i, values);
  }
}

// dx = y * (dy - sum dy y). Same geometry, two passes: 3 * sizeof(T) bytes per element. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads)
    softmax_grad_kernel(int64_t rows, int64_t cols, const T* y, const T* dy, T* dx) {
  const WarpRow<kPack> at;
  if (at.row >= rows) return;
  float p[kPack], g[kPack];
  float dot = 0.0f;
  for (int64_t i = at.first; i < cols; i += at.kStep) {
    load_floats(y + at.row * cols + i, p);
    load_floats(dy + at.row * cols + i, g);
#pragma unroll
    for (int k = 0; k < kPack; ++k) dot += p[k] * g[k];
  }
  dot = warp_sum(dot);
  for (int64_t i = at.first; i < cols; i += at.kStep) {
    load_floats(y + at.row * cols + i, p);
    load_floats(dy + at.row * cols + i, g);
#pragma unroll
    for (int k = 0; k < kPack; ++k) g[k] = p[k] * (g[k] - dot);
    store_floats(dx + at.row * cols + i, g);
  }
}

}  // namespace

template <class T>
void softmax(Stream stream, int64_t rows, int64_t cols, const T* x, T* y) {
  constexpr int kPack = kPackSize<T>;
  launch(packable<kPack>(cols, x, y) ? softmax_kernel<kPack, T> : softmax_kernel<1, T>, row_blocks(rows), kRowThreads,
         0, stream, rows, cols, x, y);
}

template <class T>
void softmax_grad(Stream stream, int64_t rows, int64_t cols, const T* y, const T* dy, T* dx) {
  constexpr int kPack = kPackSize<T>;
  launch(packable<kPack>(cols, y, dy, dx) ? softmax_grad_kernel<kPack, T> : softmax_grad_kernel<1, T>, row_blocks(rows),
         kRowThreads, 0, stream, rows, cols, y, dy, dx);
}

template void softmax(Stream, int64_t, int64_t, const float*, float*);
template void softmax(Stream, int64_t, int64_t, const bf16*, bf16*);
template void softmax_grad(Stream, int64_t, int64_t, const float*, const float*, float*);
template void softmax_grad(Stream, int64_t, int64_t, const bf16*, const bf16*, bf16*);

}  // namespace depthstill::cuda
