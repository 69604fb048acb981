#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/upsample_bilinear.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAtOnce = 4;                   // loads of a gradient's row that are under way at once: all of them at x2
constexpr int kBlocksPerMultiprocessor = 4;  // allows 64 registers; left alone, ptxas aims lower and spills

// y (N, out_rows, out_width, C of y_channels) from x (N, in_rows, in_width, C). A block takes blockDim.y neighbouring
// outputs of one row, blockDim.x threads share the channels of a pixel, N elements each; grid = rows * tiles. Moves
// sizeof(T) * (1 + in / out area) bytes per output element from and to DRAM (at x2: 5 B in fp32); the other reads of x
// hit the caches. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    upsample_bilinear_kernel(UpsampleShape s, UpsampleAxis rows, UpsampleAxis cols, int tiles, const T* __restrict__ x,
                             T* __restrict__ y) {
  const int64_t row = blockIdx.x / static_cast<unsigned>(tiles);
  const int q = static_cast<int>((blockIdx.x % static_cast<unsigned>(tiles)) * blockDim.y + threadIdx.y);
  if (q >= s.out_width) return;
  const int64_t n = row / s.out_rows();
  const int p = static_cast<int>(row - n * s.out_rows()) + s.out_first_row;
  const UpsampleAxis::Tap tap_y = rows.tap(p);
  const UpsampleAxis::Tap tap_x = cols.tap(q);
  const T* top = x + (n * s.in_rows() + tap_y.i0 - s.in_first_row) * s.in_width * s.C;
  const T* bottom = x + (n * s.in_rows() + tap_y.i1 - s.in_first_row) * s.in_width * s.C;
  const int64_t left = tap_x.i0 * s.C, right = tap_x.i1 * s.C;
  T* pixel = y + (row * s.out_width + q) * s.y_channels;

  for (int64_t c = threadIdx.x * kPack; c < s.C; c += blockDim.x * kPack) {
    float top_left[kPack], top_right[kPack], bottom_left[kPack], bottom_right[kPack];
    load_floats(top + left + c, top_left);
    load_floats(top + right + c, top_right);
    load_floats(bottom + left + c, bottom_left);
    load_floats(bottom + right + c, bottom_right);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const float t = (1.0f - tap_x.w1) * top_left[k] + tap_x.w1 * top_right[k];
      const float b = (1.0f - tap_x.w1) * bottom_left[k] + tap_x.w1 * bottom_right[k];
      top_left[k] = (1.0f - tap_y.w1) * t + tap_y.w1 * b;
    }
    store_floats(pixel + c, top_left);
  }
}

// dx[n,i,j,c] = sum over the outputs (p, q) that read (i, j) of weight * dy[n,p,q,c], at most 16 of them at x2. Same
// geometry, over the pixels of dx. Every element of dy is wanted by up to four pixels of dx, which lie in the same or
// the next block row: DRAM moves dy and dx once. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    upsample_bilinear_grad_kernel(UpsampleShape s, UpsampleAxis rows, UpsampleAxis cols, int tiles,
                                  const T* __restrict__ dy, T* __restrict__ dx) {
  const int64_t row = blockIdx.x / static_cast<unsigned>(tiles);
  const int j = static_cast<int>((blockIdx.x % static_cast<unsigned>(tiles)) * blockDim.y + threadIdx.y);
  if (j >= s.in_width) return;
  const int64_t n = row / s.in_rows();
  const int i = static_cast<int>(row - n * s.in_rows()) + s.in_first_row;
  UpsampleAxis::Range p_range = rows.readers(i);
  const UpsampleAxis::Range q_range = cols.readers(j);
  if (p_range.first < s.out_first_row) p_range.first = s.out_first_row;

  for (int64_t c = threadIdx.x * kPack; c < s.C; c += blockDim.x * kPack) {
    float sum[kPack] = {};
    for (int first = q_range.first; first <= q_range.last; first += kAtOnce) {
      float wx[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) wx[k] = first + k <= q_range.last ? cols.weight(first + k, j) : 0.0f;
      for (int p = p_range.first; p <= p_range.last; ++p) {
        const float wy = rows.weight(p, i);
        const T* from = dy + ((n * s.out_rows() + p - s.out_first_row) * s.out_width + first) * s.y_channels + c;
        Words<T, kPack> words[kAtOnce] = {};
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
          if (wx[k] != 0.0f) words[k] = load_words<kPack>(from + k * s.y_channels);
        }
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
          float g[kPack];
          to_floats<T>(words[k], g);
#pragma unroll
          for (int l = 0; l < kPack; ++l) sum[l] += wy * wx[k] * g[l];
        }
      }
    }
    store_floats(dx + (row * s.in_width + j) * s.C + c, sum);
  }
}

template <int kPack, class T>
void forward(Stream stream, const UpsampleShape& s, const T* x, T* y) {
  const UpsampleAxis rows(s.in_height, s.out_height, s.align_corners), cols(s.in_width, s.out_width, s.align_corners);
  const dim3 block = block_along_channels(s.C / kPack, kThreads, 32);
  const unsigned tiles = blocks_for(s.out_width, static_cast<int>(block.y));
  launch(upsample_bilinear_kernel<kPack, T>, blocks_for(s.N * s.out_rows() * tiles, 1), block, 0, stream, s, rows, cols,
         static_cast<int>(tiles), x, y);
}

template <int kPack, class T>
void gradient(Stream stream, const UpsampleShape& s, const T* dy, T* dx) {
  const UpsampleAxis rows(s.in_height, s.out_height, s.align_corners), cols(s.in_width, s.out_width, s.align_corners);
  const dim3 block = block_along_channels(s.C / kPack, kThreads, 32);
  const unsigned tiles = blocks_for(s.in_width, static_cast<int>(block.y));
  launch(upsample_bilinear_grad_kernel<kPack, T>, blocks_for(s.N * s.in_rows() * tiles, 1), block, 0, stream, s, rows,
         cols, static_cast<int>(tiles), dy, dx);
}

template <class T>
bool packs(const UpsampleShape& s, const T* x, const T* y) {
  return s.C % kPackSize<T> == 0 && packable<kPackSize<T>>(s.y_channels, x, y);
}

}  // namespace

template <class T>
void upsample_bilinear(Stream stream, const UpsampleShape& s, const T* x, T* y) {
  packs(s, x, y) ? forward<kPackSize<T>>(stream, s, x, y) : forward<1>(stream, s, x, y);
}

template <class T>
void upsample_bilinear_grad(Stream stream, const UpsampleShape& s, const T* dy, T* dx) {
  packs(s, dx, dy) ? gradient<kPackSize<T>>(stream, s, dy, dx) : gradient<1>(stream, s, dy, dx);
}

template void upsample_bilinear(Stream, const UpsampleShape&, const float*, float*);
template void upsample_bilinear(Stream, const UpsampleShape&, const bf16*, bf16*);
template void upsample_bilinear_grad(Stream, const UpsampleShape&, const float*, float*);
template void upsample_bilinear_grad(Stream, const UpsampleShape&, const bf16*, bf16*);

}  // namespace depthstill::cuda
