#include "kernels/depthwise/depthwise_strips.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = ChannelSums::kThreads;

// Channels of a thread, whose weights and sums of dweight stay in registers: 2 * 9 * 4, 2 * 25 * 2.
template <int K>
inline constexpr int kWidth = K == 3 ? 4 : 2;

// A thread's channels at one position of x, and dx there.
template <class T, int N, bool kNorm>
struct Positions {
  using Read = std::conditional_t<kNorm, Normalised<N>, Plain<N>>;
  const T* x;
  T* dx;
  int64_t C;
  Read read;
  float mean[N];

  __device__ __forceinline__ Positions(const BatchNormInput& norm, const T* x_, T* dx_, int C_, int channel)
      : x(x_ + channel), dx(dx_ == nullptr ? nullptr : dx_ + channel), C(C_), read(norm, channel) {
#pragma unroll
    for (int i = 0; i < N; ++i) mean[i] = kNorm ? norm.mean[channel + i] : 0.0f;
  }
  __device__ __forceinline__ Words<T, N> load(int64_t position) const { return load_words<N>(x + position * C); }
  __device__ __forceinline__ void normalise(const Words<T, N>& raw, bool inside, float (&z)[N]) const {
    to_floats<T>(raw, z);
    read(z);
#pragma unroll
    for (int i = 0; i < N; ++i) z[i] = inside ? z[i] : 0.0f;
  }
  // Adds what is stored to the two sums of the batch norm, behind those of dweight. Overwrites value.
  template <int kSums>
  __device__ __forceinline__ void put(int64_t position, const Words<T, N>& raw, const float (&z)[N], float (&value)[N],
                                      float (&sum)[kSums][N]) const {
    if constexpr (kNorm) {
#pragma unroll
      for (int i = 0; i < N; ++i) value[i] = read.through(value[i], z[i]);
    }
    const Words<T, N> words = to_words<T>(value);
    if constexpr (kNorm) {
      float stored[N], centred[N];
      to_floats<T>(words, stored);
      to_floats<T>(raw, centred);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sum[kSums - 2][i] += stored[i];
        sum[kSums - 1][i] += stored[i] * (centred[i] - mean[i]);
      }
    }
    if (dx != nullptr) store_words<N>(dx + position * C, words);
  }
};

// The positions first .. last - 1 of a row of x one by one, each from all taps that it belongs to.
template <Taps kTaps, int K, class T, int N, bool kNorm, int kSums>
__device__ __forceinline__ void gather_strip(const Input<T>& dy, const T* (&rows)[K],
                                             const Positions<T, N, kNorm>& positions, const Plain<N>& as_is, int first,
                                             int last, int64_t start, const float (&w)[K * K][N],
                                             float (&sum)[kSums][N]) {
#pragma unroll 1
  for (int q = first; q < last; ++q) {
    const Words<T, N> raw = positions.load(start + q);
    float z[N] = {}, value[N] = {};
    Words<T, N> taps[kColumns<K>][K] = {};
#pragma unroll
    for (int s = 0; s < K; ++s) {
      const auto column = [&](int j) { return source<kTaps>(q, s + j, dy.dilation, dy.pad_left, dy.width); };
      if (s % kColumns<K> == 0) {
#pragma unroll
        for (int j = 0; j < kColumns<K>; ++j) dy.template load_column<N>(rows, column(j), taps[j]);
      }
      if (s == 0) positions.normalise(raw, true, z);
      dy.template use_column<N>(rows, column(0), taps[s % kColumns<K>], as_is, [&](int r, const float(&d)[N]) {
        add_product(value, d, w[r * K + s]);
        add_product(sum[r * K + s], d, z);
      });
    }
    positions.put(start + q, raw, z, value, sum);
  }
}

// dx[n,h,w,c] = sum over taps of dy[n, source(h), source(w), c] * weight[tap, c], times the slope of the activation of
// the batch norm, and the sums of the chunk's positions of x:
//   partial[chunk, tap, c]        of dy at the tap * z
//   partial[chunk, K * K, c]      of dx            with a batch norm
//   partial[chunk, K * K + 1, c]  of dx * (x - mean)
//   dy (N, height, width, C)   weight (K, K, C)   x, dx (N, dy.out_height, strips.width, C); dx may be null
// Geometry of depthwise_kernel, walking along x: each dy is loaded once per row of taps, and goes into the K values of
// dx that it belongs to and, with the z there, into dweight. Moves x, dx and dy once if the L1/L2 caches keep K rows.
// For K = 3 in bf16 with a batch norm these are about 60 instructions per element: about as long as its 6 B take.
template <Taps kTaps, int K, class T, int N, bool kNorm>
__global__ void __launch_bounds__(kThreads, 2)
    depthwise_grad_kernel(ChannelSums sums, Strips strips, Input<T> dy, BatchNormInput norm,
                          const float* __restrict__ weight, const T* __restrict__ x, T* __restrict__ dx,
                          float* __restrict__ partial) {
  constexpr bool kFlip = kTaps == Taps::kStride1;
  constexpr int kSums = K * K + (kNorm ? 2 : 0);
  const ChannelThread<N> thread(sums);
  float sum[kSums][N] = {};
  if (thread.inside) {
    const Positions<T, N, kNorm> positions(norm, x, dx, dy.C, thread.channel);
    const Plain<N> as_is(norm, thread.channel);
    float w[K * K][N];
    load_weights(weight + thread.channel, dy.C, kFlip, w);
#pragma unroll 1
    for (int64_t strip = thread.begin; strip < thread.end; strip += ChannelThread<N>::kRowStep) {
      const int first = strips.first(static_cast<int>(strip)), row = strips.row(static_cast<int>(strip));
      const int64_t start = static_cast<int64_t>(row) * strips.width;
      const T* rows[K];
      dy.template rows_of<kTaps>(row, thread.channel, rows);
      if constexpr (kTaps == Taps::kStride1) {
        Words<T, N> raw[K] = {};
        float z[K][N] = {}, value[K][N] = {};  // [i % K]: of position i; z is 0 outside of the strip
#pragma unroll 1
        for (int base = 0; base < strips.length + K - 1; base += K) {
          Words<T, N> taps[kColumns<K>][K] = {}, next[kColumns<K>] = {};
#pragma unroll
          for (int k = 0; k < K; ++k) {
            const auto position = [&](int j) { return first + (base + k + j) * strips.phases; };
            const auto inside = [&](int j) { return base + k + j < strips.length && position(j) < strips.width; };
            if (k % kColumns<K> == 0) {
#pragma unroll
              for (int j = 0; j < kColumns<K>; ++j) {
                dy.template load_column<N>(rows, position(j) - dy.pad_left, taps[j]);
                if (inside(j)) next[j] = positions.load(start + position(j));
              }
            }
            raw[k] = next[k % kColumns<K>];
            positions.normalise(raw[k], inside(0), z[k]);
            dy.template use_column<N>(rows, position(0) - dy.pad_left, taps[k % kColumns<K>], as_is,
                                      [&](int r, const float(&d)[N]) {
#pragma unroll
                                        for (int s = 0; s < K; ++s) {
                                          add_product(value[(k - s + K) % K], d, w[r * K + s]);
                                          add_product(sum[K * K - 1 - (r * K + s)], d, z[(k - s + K) % K]);
                                        }
                                      });
            const int i = base + k - (K - 1), done = (k + 1) % K, at = first + i * strips.phases;
            if (i >= 0 && i < strips.length && at < strips.width) {
              positions.put(start + at, raw[done], z[done], value[done], sum);
            }
#pragma unroll
            for (int c = 0; c < N; ++c) value[done][c] = 0.0f;
          }
        }
      } else {
        const int end = first + strips.length;
        gather_strip<kTaps, K>(dy, rows, positions, as_is, first, end < strips.width ? end : strips.width, start, w,
                               sum);
      }
    }
  }
  store_chunk_sums(sums, sum, partial);
}

template <Taps taps, int K, class T>
void gradients(Stream stream, const DepthwiseShape& s, const BatchNormInput& norm, const T* x, const T* dy,
               const float* weight, T* dx, float* dweight, float* norm_sums) {
  const auto C = static_cast<int>(s.C);
  const bool flip = taps == Taps::kStride1;
  const int reach = s.dilation * (K - 1);
  const Strips strips(s.N * s.H, s.W, s.stride, s.dilation, K, C / kWidth<K>);
  const Input<T> in{dy,
                    static_cast<int>(s.P()),
                    static_cast<int>(s.Q()),
                    C,
                    s.dilation,
                    flip ? reach - s.pad_top : s.pad_top,
                    flip ? reach - s.pad_left : s.pad_left,
                    static_cast<int>(s.H)};
  const ChannelSums sums = share<kWidth<K>>(strips, C);
  const int kinds = K * K + (norm.mean == nullptr ? 0 : 2);
  auto* partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(kinds) * sizeof(float)));
  visit_channels<kWidth<K>, T>(C, norm, weight, x, dy, dx, [&]<int N, bool kNorm>() {
    launch(depthwise_grad_kernel<taps, K, T, N, kNorm>, sums.grid(), kThreads, 0, stream, sums, strips, in, norm,
           weight, x, dx, partial);
  });
  const int64_t stride = int64_t{kinds} * C;
  if (dweight) sum_chunks(stream, sums.chunks, K * K * C, stride, partial, dweight);
  if (norm_sums) sum_chunks(stream, sums.chunks, 2 * C, stride, partial + K * K * C, norm_sums);
}

}  // namespace

template <class T>
void depthwise_conv2d_grad(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const T* dy,
                           const float* weight, T* dx, float* dweight, float* sums) {
  visit_shape<Taps::kStride2Grad>(
      shape, [&]<Taps taps, int K>() { gradients<taps, K>(stream, shape, norm, x, dy, weight, dx, dweight, sums); });
}

template void depthwise_conv2d_grad(Stream, const DepthwiseShape&, BatchNormInput, const float*, const float*,
                                    const float*, float*, float*, float*);
template void depthwise_conv2d_grad(Stream, const DepthwiseShape&, BatchNormInput, const bf16*, const bf16*,
                                    const float*, bf16*, float*, float*);

}  // namespace depthstill::cuda
