#include "kernels/core/channel_sums.cuh"
#include "kernels/core/warp_rows.cuh"
#include "kernels/layer_norm.h"

namespace depthstill::cuda {
namespace {

// One warp per row, kRowsPerBlock rows per block; precondition channels % kPack == 0. Three passes over the row (mean,
// variance, result), of which the first comes from DRAM and the others from L1: 2 * sizeof(T) bytes per element. Bound:
// DRAM up to rows of about 1,000 elements.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads)
    layer_norm_kernel(int64_t rows, int64_t channels, float eps, const T* x, const float* weight, const float* bias,
                      T* y, float* mean, float* rstd) {
  const WarpRow<kPack> at;
  if (at.row >= rows) return;
  const T* from = x + at.row * channels;
  float v[kPack], w[kPack], b[kPack];
  float sum = 0.0f, squares = 0.0f;
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    load_floats(from + c, v);
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum += v[k];
  }
  const float m = warp_sum(sum) / static_cast<float>(channels);
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    load_floats(from + c, v);
#pragma unroll
    for (int k = 0; k < kPack; ++k) squares += (v[k] - m) * (v[k] - m);
  }
  const float r = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(channels) + eps);
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    load_floats(from + c, v);
    load_parameters(weight + c, w);
    load_parameters(bias + c, b);
#pragma unroll
    for (int k = 0; k < kPack; ++k) v[k] = (v[k] - m) * r * w[k] + b[k];
    store_floats(y + at.row * channels + c, v);
  }
  if (at.first == 0) {
    mean[at.row] = m;
    rstd[at.row] = r;
  }
}

// dx = rstd * (g - <g> - h * <g h>). The same geometry, two passes: 3 * sizeof(T) bytes per element; dx may be dy.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads)
    layer_norm_dx_kernel(int64_t rows, int64_t channels, const T* x, const float* weight, const float* mean,
                         const float* rstd, const T* dy, T* dx) {
  const WarpRow<kPack> at;
  if (at.row >= rows) return;
  const int64_t begin = at.row * channels;
  const float m = mean[at.row], r = rstd[at.row];
  float h[kPack], g[kPack], w[kPack];
  const auto load_channels = [&](int64_t c) {
    load_floats(x + begin + c, h);
    load_floats(dy + begin + c, g);
    load_parameters(weight + c, w);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      h[k] = (h[k] - m) * r;
      g[k] *= w[k];
    }
  };
  float g_sum = 0.0f, gh_sum = 0.0f;
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    load_channels(c);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      g_sum += g[k];
      gh_sum += g[k] * h[k];
    }
  }
  const float g_mean = warp_sum(g_sum) / static_cast<float>(channels);
  const float gh_mean = warp_sum(gh_sum) / static_cast<float>(channels);
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    load_channels(c);
#pragma unroll
    for (int k = 0; k < kPack; ++k) g[k] = (g[k] - g_mean - h[k] * gh_mean) * r;
    store_floats(dx + begin + c, g);
  }
}

// partial[chunk, 0 and 1, c] = sum over the chunk's rows of dy * h and dy. Geometry of ChannelSums; precondition
// channels % N == 0. Reads x and dy once: 2 * sizeof(T) bytes per element. Bound: DRAM.
template <int N, class T>
__global__ void __launch_bounds__(ChannelSums::kThreads)
    layer_norm_sums_kernel(ChannelSums sums, const T* x, const float* mean, const float* rstd, const T* dy,
                           float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  float sum[2][N] = {};
  if (thread.inside) {
    for (int64_t row = thread.begin; row < thread.end; row += ChannelThread<N>::kRowStep) {
      const int64_t at = row * sums.channels + thread.channel;
      const float m = mean[row], r = rstd[row];
      float v[N], g[N];
      load_floats(x + at, v);
      load_floats(dy + at, g);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        sum[0][k] += g[k] * ((v[k] - m) * r);
        sum[1][k] += g[k];
      }
    }
  }
  store_chunk_sums(sums, sum, partial);
}

template <int N, class T>
void sum_weights(Stream stream, int64_t rows, int64_t channels, const T* x, const float* mean, const float* rstd,
                 const T* dy, float* dweight, float* dbias) {
  const ChannelSums sums(rows, static_cast<int>(channels));
  auto* partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(2) * sizeof(float)));
  launch(layer_norm_sums_kernel<N, T>, sums.grid(), ChannelSums::kThreads, 0, stream, sums, x, mean, rstd, dy, partial);
  if (dweight) sum_chunks(stream, sums.chunks, sums.channels, 2 * channels, partial, dweight);
  if (dbias) sum_chunks(stream, sums.chunks, sums.channels, 2 * channels, partial + channels, dbias);
}

}  // namespace

template <class T>
void layer_norm(Stream stream, int64_t rows, int64_t channels, float eps, const T* x, const float* weight,
                const float* bias, T* y, float* mean, float* rstd) {
  constexpr int kPack = kPackSize<T>;
  launch(packable<kPack>(channels, x, y) && packable<4>(channels, weight, bias) ? layer_norm_kernel<kPack, T>
                                                                                : layer_norm_kernel<1, T>,
         row_blocks(rows), kRowThreads, 0, stream, rows, channels, eps, x, weight, bias, y, mean, rstd);
}

template <class T>
void layer_norm_grad(Stream stream, int64_t rows, int64_t channels, const LayerNormInput<T>& in, const T* dy, T* dx,
                     float* dweight, float* dbias) {
  constexpr int kPack = kPackSize<T>;
  const bool packs = packable<kPack>(channels, in.x, dy, dx) && packable<4>(channels, in.weight);
  if (dweight || dbias) {  // before dx, which may overwrite dy
    packs ? sum_weights<kPack>(stream, rows, channels, in.x, in.mean, in.rstd, dy, dweight, dbias)
          : sum_weights<1>(stream, rows, channels, in.x, in.mean, in.rstd, dy, dweight, dbias);
  }
  if (!dx) return;
  launch(packs ? layer_norm_dx_kernel<kPack, T> : layer_norm_dx_kernel<1, T>, row_blocks(rows), kRowThreads, 0, stream,
         rows, channels, in.x, in.weight, in.mean, in.rstd, dy, dx);
}

#define DS_INSTANTIATE(T)                                                                                              \
  template void layer_norm(Stream, int64_t, int64_t, float, const T*, const float*, const float*, T*, float*, float*); \
  template void layer_norm_grad(Stream, int64_t, int64_t, const LayerNormInput<T>&, const T*, T*, float*, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
