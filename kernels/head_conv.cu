#include "kernels/core/channel_sums.cuh"
#include "kernels/head_conv.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStep = 32;  // channels that the lanes of a pixel take at a time: all of a published head

// Lanes of a pixel: neighbours within a warp.
template <int kPack>
constexpr int kGroup = kStep / kPack;

// kGroup lanes per pixel, whose packs lie side by side; precondition channels % kPack == 0. Reads x once and writes y
// once: B + 4 bytes per pixel, B = channels * sizeof(T); the weight comes from L1. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    head_conv_kernel(int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
                     const float* bias, float* y) {
  const int thread = static_cast<int>(threadIdx.x), first = thread % kGroup<kPack> * kPack;
  const int64_t pixel = blockIdx.x * static_cast<int64_t>(kThreads / kGroup<kPack>) + thread / kGroup<kPack>;
  float sum = 0.0f;
  if (pixel < pixels) {
    for (int64_t c = first; c < channels; c += kStep) {
      float v[kPack], w[kPack];
      load_floats(x + pixel * channels + c, v);
      load_parameters(weight + c, w);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sum += v[k] * w[k];
    }
  }
  sum = warp_reduce<kGroup<kPack>>(sum, Sum{});
  if (pixel < pixels && first == 0) y[pixel] = head_activate(kind, sum + *bias);
}

// partial[chunk] = sums over the chunk's pixels for dweight, below_sums and dbias, each with `channels` places, of
// which dbias uses the first. dx is left out where it is null, the sums where partial is. Geometry of ChannelSums;
// precondition channels % N == 0. Per pixel B read, 8 more for each slab of channels, B written. Bound: DRAM.
template <int N, class T>
__global__ void __launch_bounds__(ChannelSums::kThreads)
    head_conv_grad_kernel(ChannelSums sums, Activation kind, const T* x, const float* weight, const float* y,
                          const float* dy, T* dx, Activation below, float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  float sum[3][N] = {};
  if (thread.inside) {
    float w[N];
    load_parameters(weight + thread.channel, w);
    for (int64_t pixel = thread.begin; pixel < thread.end; pixel += ChannelThread<N>::kRowStep) {
      const int64_t at = pixel * sums.channels + thread.channel;
      float v[N];
      load_floats(x + at, v);
      const float g = head_slope(kind, kind == Activation::kNone ? 0.0f : y[pixel], dy[pixel]);
      sum[2][0] += g;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        sum[0][k] += g * v[k];
        v[k] = head_slope(below, v[k], g * w[k]);
        sum[1][k] += v[k];
      }
      if (dx) store_floats(dx + at, v);
    }
  }
  if (partial) store_chunk_sums(sums, sum, partial);
}

// Adds the chunks up, in double: dweight, below_sums and dbias, those that are not null. One block per 32 sums.
__global__ void head_conv_finish_kernel(int chunks, int channels, const float* partial, float* dweight,
                                        float* below_sums, float* dbias) {
  const int column = static_cast<int>(blockIdx.x * kWarpSize + threadIdx.x), columns = 2 * channels + 1;
  double sum[1] = {};
  if (column < columns) {
    for (int chunk = static_cast<int>(threadIdx.y); chunk < chunks; chunk += kSplit) {
      sum[0] += static_cast<double>(partial[chunk * int64_t{3} * channels + column]);
    }
  }
  sum_splits(sum);
  if (threadIdx.y != 0 || column >= columns) return;
  const int part = column / channels, at = column % channels;
  float* to = part == 0 ? dweight : part == 1 ? below_sums : dbias;
  if (to) to[at] = static_cast<float>(sum[0]);
}

}  // namespace

template <class T>
void head_conv(Stream stream, int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
               const float* bias, float* y) {
  constexpr int kPack = kPackSize<T>;
  visit_pack<kPack>(packable<kPack>(channels, x) && packable<4>(channels, weight), [&]<int kWide>() {
    launch(head_conv_kernel<kWide, T>, blocks_for(pixels, kThreads / kGroup<kWide>), kThreads, 0, stream, pixels,
           channels, kind, x, weight, bias, y);
  });
}

template <class T>
void head_conv_grad(Stream stream, int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
                    const float* y, const float* dy, const HeadConvGradients<T>& to) {
  constexpr int kPack = kPackSize<T>;
  const ChannelSums sums(pixels, static_cast<int>(channels));
  const bool wanted = to.dweight || to.below_sums || to.dbias;
  float* partial = wanted ? static_cast<float*>(stream.scratch->get(sums.partial_floats(3) * sizeof(float))) : nullptr;
  visit_pack<kPack>(packable<kPack>(channels, x, to.dx) && packable<4>(channels, weight), [&]<int kWide>() {
    launch(head_conv_grad_kernel<kWide, T>, sums.grid(), ChannelSums::kThreads, 0, stream, sums, kind, x, weight, y, dy,
           to.dx, to.below, partial);
  });
  if (!wanted) return;
  launch(head_conv_finish_kernel, blocks_for(2 * channels + 1, kWarpSize), kColumnBlock, 0, stream, sums.chunks,
         sums.channels, partial, to.dweight, to.below_sums, to.dbias);
}

template void head_conv(Stream, int64_t, int64_t, Activation, const float*, const float*, const float*, float*);
template void head_conv(Stream, int64_t, int64_t, Activation, const bf16*, const float*, const float*, float*);
template void head_conv_grad(Stream, int64_t, int64_t, Activation, const float*, const float*, const float*,
                             const float*, const HeadConvGradients<float>&);
template void head_conv_grad(Stream, int64_t, int64_t, Activation, const bf16*, const float*, const float*,
                             const float*, const HeadConvGradients<bf16>&);

}  // namespace depthstill::cuda
