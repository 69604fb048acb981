#include "kernels/core/channel_sums.cuh"
#include "kernels/core/warp_rows.cuh"
#include "kernels/layer_scale.h"

namespace depthstill::cuda {
namespace {

// One warp per row, kRowsPerBlock rows per block; precondition channels % kPack == 0. Reads x and branch and writes y
// once: 3 * sizeof(T) bytes per element; gamma comes from L1. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads)
    layer_scale_kernel(int64_t rows, int64_t channels, const T* x, const T* branch, const float* gamma, T* y) {
  const WarpRow<kPack> at;
  if (at.row >= rows) return;
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    float v[kPack], b[kPack], g[kPack];
    load_floats(x + at.row * channels + c, v);
    load_floats(branch + at.row * channels + c, b);
    load_parameters(gamma + c, g);
#pragma unroll
    for (int k = 0; k < kPack; ++k) v[k] += g[k] * b[k];
    store_floats(y + at.row * channels + c, v);
  }
}

// dbranch = gamma * dy, and partial[chunk, c] = sum over the chunk's rows of dy * branch. dbranch is left out where it
// is null, the sums where partial is. Geometry of ChannelSums; precondition channels % N == 0. At most 3 * sizeof(T)
// bytes per element. Bound: DRAM.
template <int N, class T>
__global__ void __launch_bounds__(ChannelSums::kThreads)
    layer_scale_grad_kernel(ChannelSums sums, const T* branch, const float* gamma, const T* dy, T* dbranch,
                            float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  float sum[1][N] = {};
  if (thread.inside) {
    float scale[N] = {};
    if (dbranch) load_parameters(gamma + thread.channel, scale);
    for (int64_t row = thread.begin; row < thread.end; row += ChannelThread<N>::kRowStep) {
      const int64_t at = row * sums.channels + thread.channel;
      float g[N], b[N];
      load_floats(dy + at, g);
      if (partial) {
        load_floats(branch + at, b);
#pragma unroll
        for (int k = 0; k < N; ++k) sum[0][k] += g[k] * b[k];
      }
      if (dbranch) {
#pragma unroll
        for (int k = 0; k < N; ++k) g[k] *= scale[k];
        store_floats(dbranch + at, g);
      }
    }
  }
  if (partial) store_chunk_sums(sums, sum, partial);
}

}  // namespace

template <class T>
void layer_scale(Stream stream, int64_t rows, int64_t channels, const T* x, const T* branch, const float* gamma, T* y) {
  constexpr int kPack = kPackSize<T>;
  launch(packable<kPack>(channels, x, branch, y) && packable<4>(channels, gamma) ? layer_scale_kernel<kPack, T>
                                                                                 : layer_scale_kernel<1, T>,
         row_blocks(rows), kRowThreads, 0, stream, rows, channels, x, branch, gamma, y);
}

template <class T>
void layer_scale_grad(Stream stream, int64_t rows, int64_t channels, const T* branch, const float* gamma, const T* dy,
                      T* dbranch, float* dgamma) {
  constexpr int kPack = kPackSize<T>;
  const ChannelSums sums(rows, static_cast<int>(channels));
  float* partial = dgamma ? static_cast<float*>(stream.scratch->get(sums.partial_floats(1) * sizeof(float))) : nullptr;
  launch(packable<kPack>(channels, branch, dy, dbranch) && packable<4>(channels, gamma)
             ? layer_scale_grad_kernel<kPack, T>
             : layer_scale_grad_kernel<1, T>,
         sums.grid(), ChannelSums::kThreads, 0, stream, sums, branch, gamma, dy, dbranch, partial);
  if (dgamma) sum_chunks(stream, sums.chunks, sums.channels, partial, dgamma);
}

template void layer_scale(Stream, int64_t, int64_t, const float*, const float*, const float*, float*);
template void layer_scale(Stream, int64_t, int64_t, const bf16*, const bf16*, const float*, bf16*);
template void layer_scale_grad(Stream, int64_t, int64_t, const float*, const float*, const float*, float*, float*);
template void layer_scale_grad(Stream, int64_t, int64_t, const bf16*, const float*, const bf16*, bf16*, float*);

}  // namespace depthstill::cuda
