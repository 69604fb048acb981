#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/upsample_bicubic.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// y (N, rows.out, cols.out, C) from x (N, rows.in, cols.in, C). A block takes blockDim.y neighbouring outputs of one
// row, blockDim.x threads share the channels of a pixel, N elements each; grid = rows * tiles.
// Moves sizeof(T) * (1 + in / out area) bytes per output element from and to DRAM; the other reads of x hit the caches,
// 16 loads per element. Bound: L1.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    upsample_bicubic_kernel(BicubicShape s, int tiles, const T* __restrict__ x, T* __restrict__ y) {
  const int64_t row = blockIdx.x / static_cast<unsigned>(tiles);
  const int q = static_cast<int>((blockIdx.x % static_cast<unsigned>(tiles)) * blockDim.y + threadIdx.y);
  if (q >= s.cols.out) return;
  const int64_t n = row / s.rows.out;
  const BicubicAxis::Taps tap_y = s.rows.taps(static_cast<int>(row - n * s.rows.out)), tap_x = s.cols.taps(q);

  for (int64_t c = threadIdx.x * kPack; c < s.C; c += blockDim.x * kPack) {
    float sum[kPack] = {};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const T* line = x + (n * s.rows.in + s.rows.clamp(tap_y.first + r)) * s.cols.in * s.C + c;
      float part[kPack] = {};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        float v[kPack];
        load_floats(line + s.cols.clamp(tap_x.first + k) * s.C, v);
#pragma unroll
        for (int i = 0; i < kPack; ++i) part[i] += tap_x.weight[k] * v[i];
      }
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum[i] += tap_y.weight[r] * part[i];
    }
    store_floats(y + (row * s.cols.out + q) * s.C + c, sum);
  }
}

// dx[n,i,j,c] = sum over the outputs (p, q) that read (i, j) of weight * dy[n,p,q,c]: about 16 times the area ratio.
// Same geometry, over the pixels of dx. Bound: L1.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    upsample_bicubic_grad_kernel(BicubicShape s, int tiles, const T* __restrict__ dy, T* __restrict__ dx) {
  const int64_t row = blockIdx.x / static_cast<unsigned>(tiles);
  const int j = static_cast<int>((blockIdx.x % static_cast<unsigned>(tiles)) * blockDim.y + threadIdx.y);
  if (j >= s.cols.in) return;
  const int64_t n = row / s.rows.in;
  const int i = static_cast<int>(row - n * s.rows.in);
  const BicubicAxis::Range p_range = s.rows.readers(i), q_range = s.cols.readers(j);

  for (int64_t c = threadIdx.x * kPack; c < s.C; c += blockDim.x * kPack) {
    float sum[kPack] = {};
    for (int p = p_range.first; p <= p_range.last; ++p) {
      const float wy = s.rows.weight(p, i);
      if (wy == 0.0f) continue;
      const T* line = dy + (n * s.rows.out + p) * s.cols.out * s.C + c;
      for (int q = q_range.first; q <= q_range.last; ++q) {
        const float w = wy * s.cols.weight(q, j);
        if (w == 0.0f) continue;
        float g[kPack];
        load_floats(line + q * s.C, g);
#pragma unroll
        for (int k = 0; k < kPack; ++k) sum[k] += w * g[k];
      }
    }
    store_floats(dx + (row * s.cols.in + j) * s.C + c, sum);
  }
}

template <int kPack, class T>
void forward(Stream stream, const BicubicShape& s, const T* x, T* y) {
  const dim3 block = block_along_channels(s.C / kPack, kThreads, 32);
  const unsigned tiles = blocks_for(s.cols.out, static_cast<int>(block.y));
  launch(upsample_bicubic_kernel<kPack, T>, blocks_for(s.N * s.rows.out * tiles, 1), block, 0, stream, s,
         static_cast<int>(tiles), x, y);
}

template <int kPack, class T>
void gradient(Stream stream, const BicubicShape& s, const T* dy, T* dx) {
  const dim3 block = block_along_channels(s.C / kPack, kThreads, 32);
  const unsigned tiles = blocks_for(s.cols.in, static_cast<int>(block.y));
  launch(upsample_bicubic_grad_kernel<kPack, T>, blocks_for(s.N * s.rows.in * tiles, 1), block, 0, stream, s,
         static_cast<int>(tiles), dy, dx);
}

}  // namespace

template <class T>
void upsample_bicubic(Stream stream, const BicubicShape& s, const T* x, T* y) {
  packable<kPackSize<T>>(s.C, x, y) ? forward<kPackSize<T>>(stream, s, x, y) : forward<1>(stream, s, x, y);
}

template <class T>
void upsample_bicubic_grad(Stream stream, const BicubicShape& s, const T* dy, T* dx) {
  packable<kPackSize<T>>(s.C, dy, dx) ? gradient<kPackSize<T>>(stream, s, dy, dx) : gradient<1>(stream, s, dy, dx);
}

template void upsample_bicubic(Stream, const BicubicShape&, const float*, float*);
template void upsample_bicubic(Stream, const BicubicShape&, const bf16*, bf16*);
template void upsample_bicubic_grad(Stream, const BicubicShape&, const float*, float*);
template void upsample_bicubic_grad(Stream, const BicubicShape&, const bf16*, bf16*);

}  // namespace depthstill::cuda
