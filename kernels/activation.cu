#include "kernels/activation.h"
#include "kernels/core/channel_sums.cuh"
#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// One thread per pack of N elements. Reads x and writes y once: 4 B per bf16 element. y may be x.
template <class T, int N, Activation kind>
__global__ void activation_kernel(int64_t packs, const T* x, T* y) {
  for (const int64_t i : grid_stride(packs)) {
    float v[N];
    load_floats(x + i * N, v);
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = activate<kind>(v[k]);
    store_floats(y + i * N, v);
  }
}

// dx = (dy + second) * slope(y); second may be null. One thread per pack; 6 B per bf16 element, 8 B with second. dx may
// be either.
template <class T, int N, Activation kind>
__global__ void activation_grad_kernel(int64_t packs, const T* y, const T* dy, const T* second, T* dx) {
  for (const int64_t i : grid_stride(packs)) {
    float out[N], z[N];
    load_floats(y + i * N, out);
    load_floats(dy + i * N, z);
    if (second != nullptr) {
      float more[N];
      load_floats(second + i * N, more);
#pragma unroll
      for (int k = 0; k < N; ++k) z[k] += more[k];
    }
#pragma unroll
    for (int k = 0; k < N; ++k) z[k] *= activation_slope<kind>(out[k]);
    store_floats(dx + i * N, z);
  }
}

// dx = dy * slope(y), partial[chunk, c] = sum of dx over the chunk's rows, as it is before rounding to T. y is not read
// without activation, and dx is not written where it is dy already.
// Geometry of ChannelSums; precondition channels % N == 0. At most 6 B per bf16 element.
template <class T, int N, Activation kind>
__global__ void __launch_bounds__(ChannelSums::kThreads)
    bias_activation_grad_kernel(ChannelSums sums, const T* y, const T* dy, T* dx, float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  float sum[1][N] = {};
  if (thread.inside) {
    for (int64_t row = thread.begin; row < thread.end; row += ChannelThread<N>::kRowStep) {
      const int64_t at = row * sums.channels + thread.channel;
      float z[N];
      load_floats(dy + at, z);
      if constexpr (kind != Activation::kNone) {
        float out[N];
        load_floats(y + at, out);
#pragma unroll
        for (int k = 0; k < N; ++k) z[k] *= activation_slope<kind>(out[k]);
      }
      if (kind != Activation::kNone || dx != dy) store_floats(dx + at, z);
#pragma unroll
      for (int k = 0; k < N; ++k) sum[0][k] += z[k];
    }
  }
  store_chunk_sums(sums, sum, partial);
}

}  // namespace

template <class T>
void activation(Stream stream, int64_t n, Activation kind, const T* x, T* y) {
  constexpr int kPack = kPackSize<T>;
  visit(kind, [&]<Activation k>() {
    visit_pack<kPack>(packable<kPack>(n, x, y), [&]<int N>() {
      launch(activation_kernel<T, N, k>, blocks_for(n / N, kThreads, kLoopBlocks), kThreads, 0, stream, n / N, x, y);
    });
  });
}

template <class T>
void activation_grad(Stream stream, int64_t n, Activation kind, const T* y, const T* dy, const T* second, T* dx) {
  constexpr int kPack = kPackSize<T>;
  visit(kind, [&]<Activation k>() {
    visit_pack<kPack>(packable<kPack>(n, y, dy, second, dx), [&]<int N>() {
      launch(activation_grad_kernel<T, N, k>, blocks_for(n / N, kThreads, kLoopBlocks), kThreads, 0, stream, n / N, y,
             dy, second, dx);
    });
  });
}

template <class T>
void bias_activation_grad(Stream stream, int64_t rows, int channels, Activation kind, const T* y, const T* dy, T* dx,
                          float* dbias) {
  if (!dbias) {
    if (kind != Activation::kNone || dx != dy) activation_grad<T>(stream, rows * channels, kind, y, dy, nullptr, dx);
    return;
  }
  constexpr int kPack = kPackSize<T>;
  // Rows of few channels are taken several at a time, so that a slab is full; sum_chunks then sees more chunks.
  int fold = 1;
  while (2 * fold * channels <= ChannelSums::kSlab && rows % (2 * fold) == 0) fold *= 2;
  const ChannelSums sums(rows / fold, channels * fold);
  auto* partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(1) * sizeof(float)));
  visit(kind, [&]<Activation k>() {
    visit_pack<kPack>(packable<kPack>(sums.channels, y, dy, dx), [&]<int N>() {
      launch(bias_activation_grad_kernel<T, N, k>, sums.grid(), ChannelSums::kThreads, 0, stream, sums, y, dy, dx,
             partial);
    });
  });
  sum_chunks(stream, sums.chunks * fold, channels, partial, dbias);
}

template void activation(Stream, int64_t, Activation, const float*, float*);
template void activation(Stream, int64_t, Activation, const bf16*, bf16*);
template void activation_grad(Stream, int64_t, Activation, const float*, const float*, const float*, float*);
template void activation_grad(Stream, int64_t, Activation, const bf16*, const bf16*, const bf16*, bf16*);
template void bias_activation_grad(Stream, int64_t, int, Activation, const float*, const float*, float*, float*);
template void bias_activation_grad(Stream, int64_t, int, Activation, const bf16*, const bf16*, bf16*, float*);

}  // namespace depthstill::cuda
