#include "kernels/batch_norm.h"
#include "kernels/core/channel_sums.cuh"
#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/core/warp.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = ChannelSums::kThreads;

// partial[chunk, 0 and 1, c] = sum over the chunk's rows of d and d^2, d = x - the chunk's first row. All threads of
// the block must call it.
template <class T, int N>
__device__ __forceinline__ void take_chunk_sums(const ChannelSums& sums, const T* __restrict__ x,
                                                float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  float sum[2][N] = {};
  if (thread.inside) {
    const T* at = x + thread.channel;
    float shift[N];
    load_floats(at + thread.chunk_begin * sums.channels, shift);
    for (int64_t row = thread.begin; row < thread.end; row += ChannelThread<N>::kRowStep) {
      float v[N];
      load_floats(at + row * sums.channels, v);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float d = v[i] - shift[i];
        sum[0][i] += d;
        sum[1][i] += d * d;
      }
    }
  }
  store_chunk_sums(sums, sum, partial);
}

// Geometry of ChannelSums; precondition channels % N == 0. Reads x once: 2 B per bf16 element.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    stats_kernel(ChannelSums sums, const T* __restrict__ x, float* __restrict__ partial) {
  take_chunk_sums<T, N>(sums, x, partial);
}

struct RunningStats {
  float eps, momentum;
  float *running_mean, *running_var, *mean, *rstd;

  // `biased` is the variance of n rows.
  __device__ void assign(int c, double m, double biased, double n) const {
    mean[c] = static_cast<float>(m);
    rstd[c] = static_cast<float>(1.0 / sqrt(biased + static_cast<double>(eps)));
    running_mean[c] += momentum * (mean[c] - running_mean[c]);
    running_var[c] += momentum * (static_cast<float>(biased * n / (n - 1.0)) - running_var[c]);
  }
};

struct Moments {
  int channels;
  float* moments;

  __device__ void assign(int c, double m, double biased, double) const {
    moments[c] = static_cast<float>(m);
    moments[channels + c] = static_cast<float>(biased);
  }
};

// Adds a thread's share of a channel's chunks, as take_chunk_sums left them, to the sums of x and of x^2.
template <class T>
__device__ __forceinline__ void add_chunks(const ChannelSums& sums, const T* x, const float* partial, int c,
                                           double (&sum)[2]) {
  for (int chunk = static_cast<int>(threadIdx.y); chunk < sums.chunks; chunk += kSplit) {
    const int64_t first = chunk * sums.rows_per_chunk, left = sums.rows - first;
    const auto n = static_cast<double>(left < sums.rows_per_chunk ? left : sums.rows_per_chunk);
    const auto shift = static_cast<double>(static_cast<float>(x[first * sums.channels + c]));
    const float* at = partial + static_cast<int64_t>(chunk) * 2 * sums.channels + c;
    const auto s0 = static_cast<double>(at[0]), s1 = static_cast<double>(at[sums.channels]);
    sum[0] += s0 + n * shift;
    sum[1] += s1 + 2.0 * shift * s0 + n * shift * shift;
  }
}

// Adds up the chunks of stats_kernel in double. One column of kSplit threads per channel; 8 B per chunk and channel.
template <class T, class Stats>
__global__ void finish_stats_kernel(ChannelSums sums, const T* x, const float* partial, Stats stats) {
  const int c = static_cast<int>(blockIdx.x * kWarpSize + threadIdx.x);
  double sum[2] = {};  // sums of x and of x^2
  if (c < sums.channels) add_chunks(sums, x, partial, c, sum);
  sum_splits(sum);
  if (threadIdx.y != 0 || c >= sums.channels) return;
  const auto n = static_cast<double>(sums.rows);
  const double m = sum[0] / n, var = sum[1] / n - m * m;
  stats.assign(c, m, var < 0.0 ? 0.0 : var, n);
}

// A channel's mean of x - guess, and its variance, by the sums that the producer of x left in moments.
struct GivenMoments {
  double d = 0.0, var = 0.0;

  GivenMoments() = default;
  __device__ GivenMoments(const ChannelSums& sums, const float* moments, int c) {
    const auto n = static_cast<double>(sums.rows);
    d = static_cast<double>(moments[c]) / n;
    var = static_cast<double>(moments[sums.channels + c]) / n - d * d;
  }
  __device__ bool useless() const { return cancels(d, var); }
};

// stats_kernel for slabs that have a channel whose given sums cancel. Blocks of all others leave at once.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    stats_again_kernel(ChannelSums sums, const T* __restrict__ x, const float* __restrict__ moments,
                       float* __restrict__ partial) {
  static_assert(ChannelSums::kSlab == kWarpSize);
  const int c = static_cast<int>(blockIdx.y) * ChannelSums::kSlab + static_cast<int>(threadIdx.x) % kWarpSize;
  const bool useless = c < sums.channels && GivenMoments(sums, moments, c).useless();
  if (!__any_sync(kAllLanes, useless)) return;  // all warps of a block look at the same channels
  take_chunk_sums<T, N>(sums, x, partial);
}

// batch_norm_moments_of_sums, in place, from the given sums or from those of stats_again_kernel. One column of kSplit
// threads per channel.
template <class T>
__global__ void moments_of_sums_kernel(ChannelSums sums, const T* x, const float* guess, const float* partial,
                                       float* moments) {
  const int c = static_cast<int>(blockIdx.x * kWarpSize + threadIdx.x);
  const bool inside = c < sums.channels;
  const GivenMoments given = inside ? GivenMoments(sums, moments, c) : GivenMoments();
  const bool again = given.useless();
  double sum[2] = {};
  if (again) add_chunks(sums, x, partial, c, sum);
  sum_splits(sum);
  if (threadIdx.y != 0 || !inside) return;
  const auto n = static_cast<double>(sums.rows);
  const double m = again ? sum[0] / n : static_cast<double>(guess[c]) + given.d;
  const double var = again ? sum[1] / n - m * m : given.var;
  moments[c] = static_cast<float>(m);
  moments[sums.channels + c] = static_cast<float>(var < 0.0 ? 0.0 : var);
}

__global__ void ready_stats_kernel(int64_t rows, int channels, const float* moments, RunningStats stats) {
  for (const int64_t c : grid_stride(channels)) {
    stats.assign(static_cast<int>(c), static_cast<double>(moments[c]), static_cast<double>(moments[channels + c]),
                 static_cast<double>(rows));
  }
}

__global__ void running_stats_kernel(int channels, float eps, const float* running_mean, const float* running_var,
                                     float* mean, float* rstd) {
  for (const int64_t c : grid_stride(channels)) {
    mean[c] = running_mean[c];
    rstd[c] = 1.0f / sqrtf(running_var[c] + eps);
  }
}

// A thread's channels of the norm; in the gradient y, and dz from x and dy.
template <class T, int N, Activation kind>
struct Channels {
  float mean[N], scale[N], bias[N];

  __device__ __forceinline__ Channels(int channel, const BatchNormInput& norm) {
    float weight[N];
    load_parameters(norm.mean + channel, mean);
    load_parameters(norm.bias + channel, bias);
    load_parameters(norm.rstd + channel, scale);
    load_parameters(norm.weight + channel, weight);
#pragma unroll
    for (int i = 0; i < N; ++i) scale[i] *= weight[i];
  }
  __device__ __forceinline__ void load(const T* x, const T* dy, float (&centred)[N], float (&dz)[N],
                                       float (&y)[N]) const {
    load_floats(x, centred);
    load_floats(dy, dz);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      centred[i] -= mean[i];
      y[i] = activate<kind>(centred[i] * scale[i] + bias[i]);
      dz[i] *= activation_slope<kind>(y[i]);
    }
  }
};

// y = act((x - mean) * rstd * weight + bias). Geometry of ChannelSums, so that the coefficients stay in registers.
// Reads x and writes y once: 4 B per bf16 element.
template <class T, int N, Activation kind>
__global__ void __launch_bounds__(kThreads)
    batch_norm_kernel(ChannelSums sums, const T* __restrict__ x, BatchNormInput norm, T* __restrict__ y) {
  const ChannelThread<N> thread(sums);
  if (!thread.inside) return;
  const Channels<T, N, kind> channels(thread.channel, norm);
  for (int64_t row = thread.begin; row < thread.end; row += ChannelThread<N>::kRowStep) {
    float v[N];
    load_floats(x + row * sums.channels + thread.channel, v);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = activate<kind>((v[i] - channels.mean[i]) * channels.scale[i] + channels.bias[i]);
    store_floats(y + row * sums.channels + thread.channel, v);
  }
}

// partial[chunk, 0 and 1, c] = sum over the chunk's rows of dz and dz * (x - mean). Reads x and dy once.
template <class T, int N, Activation kind>
__global__ void __launch_bounds__(kThreads)
    batch_norm_grad_sums_kernel(ChannelSums sums, const T* __restrict__ x, BatchNormInput norm,
                                const T* __restrict__ dy, float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  float sum[2][N] = {};
  if (thread.inside) {
    const Channels<T, N, kind> channels(thread.channel, norm);
#pragma unroll 1
    for (int64_t row = thread.begin; row < thread.end; row += ChannelThread<N>::kRowStep) {
      const int64_t at = row * sums.channels + thread.channel;
      float centred[N], dz[N], y[N];
      channels.load(x + at, dy + at, centred, dz, y);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sum[0][i] += dz[i];
        sum[1][i] += dz[i] * centred[i];
      }
    }
  }
  store_chunk_sums(sums, sum, partial);
}

// dweight, dbias and the two coefficients of dx = scale * dz + slope * (x - mean) + offset, where slope and offset
// are (channels) each and zero for constant statistics. Geometry of finish_stats_kernel.
__global__ void finish_grad_kernel(ChannelSums sums, Statistics statistics, const float* rstd, const float* weight,
                                   const float* partial, float* dweight, float* dbias, float* slope, float* offset) {
  const int c = static_cast<int>(blockIdx.x * kWarpSize + threadIdx.x);
  double sums_of_dz[2] = {};  // dz, and dz * (x - mean)
  if (c < sums.channels) {
    for (int chunk = static_cast<int>(threadIdx.y); chunk < sums.chunks; chunk += kSplit) {
      const float* at = partial + static_cast<int64_t>(chunk) * 2 * sums.channels + c;
      sums_of_dz[0] += static_cast<double>(at[0]);
      sums_of_dz[1] += static_cast<double>(at[sums.channels]);
    }
  }
  sum_splits(sums_of_dz);
  if (threadIdx.y != 0 || c >= sums.channels) return;
  const auto r = static_cast<double>(rstd[c]);
  const double sum = sums_of_dz[0], sum_h = sums_of_dz[1] * r;
  dbias[c] = static_cast<float>(sum);
  dweight[c] = static_cast<float>(sum_h);
  const bool constant = statistics == Statistics::kConstant;
  const double per_row = r * static_cast<double>(weight[c]) / static_cast<double>(sums.rows);
  slope[c] = constant ? 0.0f : static_cast<float>(-per_row * sum_h * r);
  offset[c] = constant ? 0.0f : static_cast<float>(-per_row * sum);
}

// dx may be dy. Reads x and dy and writes dx and, unless null, y once: 6 or 8 B per bf16 element.
template <class T, int N, Activation kind>
__global__ void __launch_bounds__(kThreads)
    batch_norm_dx_kernel(ChannelSums sums, const T* __restrict__ x, BatchNormInput norm, const float* slope,
                         const float* offset, const T* dy, T* dx, T* __restrict__ y_out) {
  const ChannelThread<N> thread(sums);
  if (!thread.inside) return;
  const Channels<T, N, kind> channels(thread.channel, norm);
  float a[N], b[N];
  load_parameters(slope + thread.channel, a);
  load_parameters(offset + thread.channel, b);
  for (int64_t row = thread.begin; row < thread.end; row += ChannelThread<N>::kRowStep) {
    const int64_t at = row * sums.channels + thread.channel;
    float centred[N], dz[N], y[N];
    channels.load(x + at, dy + at, centred, dz, y);
    if (y_out) store_floats(y_out + at, y);
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] = dz[i] * channels.scale[i] + (centred[i] * a[i] + b[i]);
    store_floats(dx + at, dz);
  }
}

// Channels per thread: a pack of 16 bytes, but half of one where the sigmoid's division would make bf16 kernels spill.
template <class T, Activation kind>
inline constexpr int kPack = kind == Activation::kSigmoid ? 4 : kPackSize<T>;

// Returns whether kWide channels at a time can be read from the norm and the maps.
template <int kWide, class... P>
bool packs(int channels, const BatchNormInput& norm, const P*... maps) {
  constexpr int kFloats = kWide < 4 ? kWide : 4;
  return packable<kWide>(channels, maps...) &&
         packable<kFloats>(channels, norm.mean, norm.rstd, norm.weight, norm.bias);
}

template <class T, class Stats>
void take_stats(Stream stream, int64_t rows, int channels, const T* x, const Stats& stats) {
  const ChannelSums sums(rows, channels);
  auto* partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(2) * sizeof(float)));
  constexpr int kWide = kPackSize<T>;
  visit_pack<kWide>(packable<kWide>(channels, x),
                    [&]<int N>() { launch(stats_kernel<T, N>, sums.grid(), kThreads, 0, stream, sums, x, partial); });
  launch(finish_stats_kernel<T, Stats>, blocks_for(channels, kWarpSize), kColumnBlock, 0, stream, sums, x, partial,
         stats);
}

}  // namespace

template <class T>
void batch_norm_batch_stats(Stream stream, int64_t rows, int channels, float eps, float momentum, const T* x,
                            float* running_mean, float* running_var, float* mean, float* rstd) {
  take_stats(stream, rows, channels, x, RunningStats{eps, momentum, running_mean, running_var, mean, rstd});
}

template <class T>
void batch_norm_moments(Stream stream, int64_t rows, int channels, const T* x, float* moments) {
  take_stats(stream, rows, channels, x, Moments{channels, moments});
}

template <class T>
void batch_norm_moments_of_sums(Stream stream, int64_t rows, int channels, const T* x, const float* guess,
                                float* moments) {
  const ChannelSums sums(rows, channels);
  auto* partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(2) * sizeof(float)));
  constexpr int kWide = kPackSize<T>;
  visit_pack<kWide>(packable<kWide>(channels, x), [&]<int N>() {
    launch(stats_again_kernel<T, N>, sums.grid(), kThreads, 0, stream, sums, x, moments, partial);
  });
  launch(moments_of_sums_kernel<T>, blocks_for(channels, kWarpSize), kColumnBlock, 0, stream, sums, x, guess, partial,
         moments);
}

void batch_norm_ready_stats(Stream stream, int64_t rows, int channels, float eps, float momentum, const float* moments,
                            float* running_mean, float* running_var, float* mean, float* rstd) {
  launch(ready_stats_kernel, blocks_for(channels, kThreads, 8), kThreads, 0, stream, rows, channels, moments,
         RunningStats{eps, momentum, running_mean, running_var, mean, rstd});
}

void batch_norm_running_stats(Stream stream, int channels, float eps, const float* running_mean,
                              const float* running_var, float* mean, float* rstd) {
  launch(running_stats_kernel, blocks_for(channels, kThreads, 8), kThreads, 0, stream, channels, eps, running_mean,
         running_var, mean, rstd);
}

template <class T>
void batch_norm(Stream stream, int64_t rows, int channels, const BatchNormInput& norm, const T* x, T* y) {
  const ChannelSums sums(rows, channels);
  visit(norm.act, [&]<Activation kind>() {
    constexpr int kWide = kPack<T, kind>;
    visit_pack<kWide>(packs<kWide>(channels, norm, x, y), [&]<int N>() {
      launch(batch_norm_kernel<T, N, kind>, sums.grid(), kThreads, 0, stream, sums, x, norm, y);
    });
  });
}

template <class T>
void batch_norm_grad(Stream stream, int64_t rows, int channels, const BatchNormInput& norm, Statistics statistics,
                     const T* x, const T* dy, const BatchNormGradients<T>& to) {
  const ChannelSums sums(rows, channels);
  const size_t partials = sums.partial_floats(2);
  auto* partial =
      static_cast<float*>(stream.scratch->get((partials + 2 * static_cast<size_t>(channels)) * sizeof(float)));
  float *slope = partial + partials, *offset = slope + channels;
  visit(norm.act, [&]<Activation kind>() {
    constexpr int kWide = kPack<T, kind>;
    visit_pack<kWide>(packs<kWide>(channels, norm, x, dy, to.dx, to.y), [&]<int N>() {
      launch(batch_norm_grad_sums_kernel<T, N, kind>, sums.grid(), kThreads, 0, stream, sums, x, norm, dy, partial);
      launch(finish_grad_kernel, blocks_for(channels, kWarpSize), kColumnBlock, 0, stream, sums, statistics, norm.rstd,
             norm.weight, partial, to.dweight, to.dbias, slope, offset);
      if (!to.dx) return;
      launch(batch_norm_dx_kernel<T, N, kind>, sums.grid(), kThreads, 0, stream, sums, x, norm, slope, offset, dy,
             to.dx, to.y);
    });
  });
  // Without dx there is no pass to share.
  if (to.y && !to.dx) batch_norm(stream, rows, channels, norm, x, to.y);
}

template <class T>
void batch_norm_grad_of_sums(Stream stream, int64_t rows, int channels, const BatchNormInput& norm,
                             Statistics statistics, const T* x, const float* sums, const T* dz,
                             const BatchNormGradients<T>& to) {
  const ChannelSums shares(rows, channels);
  ChannelSums ready = shares;  // the sums are those of one chunk
  ready.chunks = 1;
  auto* slope = static_cast<float*>(stream.scratch->get(2 * static_cast<size_t>(channels) * sizeof(float)));
  float* offset = slope + channels;
  launch(finish_grad_kernel, blocks_for(channels, kWarpSize), kColumnBlock, 0, stream, ready, statistics, norm.rstd,
         norm.weight, sums, to.dweight, to.dbias, slope, offset);
  constexpr int kWide = kPackSize<T>;
  visit_pack<kWide>(packs<kWide>(channels, norm, x, dz, to.dx), [&]<int N>() {
    launch(batch_norm_dx_kernel<T, N, Activation::kNone>, shares.grid(), kThreads, 0, stream, shares, x, norm, slope,
           offset, dz, to.dx, nullptr);
  });
}

#define DS_INSTANTIATE(T)                                                                                             \
  template void batch_norm_batch_stats(Stream, int64_t, int, float, float, const T*, float*, float*, float*, float*); \
  template void batch_norm_moments(Stream, int64_t, int, const T*, float*);                                           \
  template void batch_norm_moments_of_sums(Stream, int64_t, int, const T*, const float*, float*);                     \
  template void batch_norm(Stream, int64_t, int, const BatchNormInput&, const T*, T*);                                \
  template void batch_norm_grad(Stream, int64_t, int, const BatchNormInput&, Statistics, const T*, const T*,          \
                                const BatchNormGradients<T>&);                                                        \
  template void batch_norm_grad_of_sums(Stream, int64_t, int, const BatchNormInput&, Statistics, const T*,            \
                                        const float*, const T*, const BatchNormGradients<T>&);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
