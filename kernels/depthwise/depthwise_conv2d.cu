#include "kernels/depthwise/depthwise_strips.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = ChannelSums::kThreads;

// Channels of a thread, whose weights stay in registers: 9 * 8 in bf16, 25 * 4.
template <class T, int K>
inline constexpr int kWidth = K == 3 ? kPackSize<T> : 4;

// Sums over n values of d and d^2, d being the difference to a value near them, in N channels.
template <int N>
struct Spread {
  float n = 0.0f, near[N] = {}, sum[N] = {}, squares[N] = {};  // n: exact up to 2^24

  __device__ __forceinline__ void add(const float (&y)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (n == 0.0f) near[i] = y[i];
      const float d = y[i] - near[i];
      sum[i] += d;
      squares[i] += d * d;
    }
    n += 1.0f;
  }
  // Adds channel i of another, whose differences become those to `near`.
  __device__ __forceinline__ void merge(int i, float other_n, float other_near, float other_sum, float other_squares) {
    if (n == 0.0f) near[i] = other_near;
    const float shift = other_near - near[i];
    if (other_n == 0.0f) return;
    sum[i] += other_sum + other_n * shift;
    squares[i] += other_squares + shift * (2.0f * other_sum + other_n * shift);
  }
};

constexpr int kMoments = 4;  // sums per chunk and channel: n, near, sum, squares of Spread

// Writes the block's spread to its place in `partial` (chunks, kMoments, channels), as store_chunk_sums does sums.
template <int N>
__device__ __forceinline__ void store_chunk_spread(const ChannelSums& sums, Spread<N>& spread, float* partial) {
  constexpr int kWarps = kThreads / kWarpSize, kSlab = ChannelSums::kSlab, kGroups = ChannelThread<N>::kGroups;
  __shared__ float warps[kWarps][kMoments][kSlab];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
#pragma unroll
  for (int offset = kWarpSize / 2; offset >= kGroups; offset /= 2) {  // lanes of the same channels
    const float n = __shfl_xor_sync(kAllLanes, spread.n, offset);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float near = __shfl_xor_sync(kAllLanes, spread.near[i], offset);
      const float sum = __shfl_xor_sync(kAllLanes, spread.sum[i], offset);
      const float squares = __shfl_xor_sync(kAllLanes, spread.squares[i], offset);
      spread.merge(i, n, near, sum, squares);
    }
    spread.n += n;
  }
  if (lane < kGroups) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float* const to = &warps[warp][0][lane * N + i];
      to[0] = spread.n;
      to[kSlab] = spread.near[i];
      to[2 * kSlab] = spread.sum[i];
      to[3 * kSlab] = spread.squares[i];
    }
  }
  __syncthreads();
  const int channel = static_cast<int>(blockIdx.y) * kSlab + thread;
  if (thread >= kSlab || channel >= sums.channels) return;
  Spread<1> all;
  for (int w = 0; w < kWarps; ++w) {
    const float* const from = &warps[w][0][thread];
    all.merge(0, from[0], from[kSlab], from[2 * kSlab], from[3 * kSlab]);
    all.n += from[0];
  }
  float* const to = partial + static_cast<int64_t>(blockIdx.x) * kMoments * sums.channels + channel;
  to[0] = all.n;
  to[sums.channels] = all.near[0];
  to[2 * sums.channels] = all.sum[0];
  to[3 * sums.channels] = all.squares[0];
}

// The outputs of a strip go here, rounded; `spread` is that of what is stored.
template <class T, int N, bool kSpread>
struct Output {
  T* y;
  int64_t C;
  Spread<kSpread ? N : 1> spread;

  __device__ __forceinline__ Output(T* y_, int C_, int channel) : y(y_ + channel), C(C_) {}
  __device__ __forceinline__ void put(int64_t position, const float (&value)[N]) {
    const Words<T, N> words = to_words<T>(value);
    if constexpr (kSpread) {
      float stored[N];
      to_floats<T>(words, stored);
      spread.add(stored);
    }
    store_words<N>(y + position * C, words);
  }
};

// out[n,h,w,c] = sum over taps of z[n, source(h), source(w), c] * weight[tap, c], z = read(in).
//   in (N, height, width, C)   weight (K, K, C)   out (N, out_height, strips.width, C)
//   partial: of store_chunk_spread, if kSpread
// Strips are the rows of ChannelSums; precondition: C % N == 0. At stride 1 a thread walks the columns of a strip: each
// input is loaded once per row of taps and goes into the sums of the K outputs that it belongs to, of which sum[i % K]
// is that of output i. Moves both maps once if the L1/L2 caches keep K rows. For K = 3 in bf16 an output takes about 37
// instructions, with the batch norm and the moments: an H100 issues them in the time of its 4 B of DRAM traffic.
template <Taps kTaps, int K, class T, int N, class Read, bool kSpread>
__global__ void __launch_bounds__(kThreads, 2)
    depthwise_kernel(ChannelSums sums, Strips strips, Input<T> in, BatchNormInput norm,
                     const float* __restrict__ weight, T* __restrict__ out, float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  Output<T, N, kSpread> output(out, in.C, thread.channel);
  if (thread.inside) {
    const Read read(norm, thread.channel);
    float w[K * K][N];
    load_weights(weight + thread.channel, in.C, false, w);
#pragma unroll 1
    for (int64_t strip = thread.begin; strip < thread.end; strip += ChannelThread<N>::kRowStep) {
      const int first = strips.first(static_cast<int>(strip)), row = strips.row(static_cast<int>(strip));
      const int64_t start = static_cast<int64_t>(row) * strips.width;
      const T* rows[K];
      in.template rows_of<kTaps>(row, thread.channel, rows);
      if constexpr (kTaps == Taps::kStride1) {
        float sum[K][N] = {};
#pragma unroll 1
        for (int base = 0; base < strips.length + K - 1; base += K) {
          const int start_column = first + base * strips.phases - in.pad_left;
          Words<T, N> taps[kColumns<K>][K] = {};
#pragma unroll
          for (int k = 0; k < K; ++k) {
            if (k % kColumns<K> == 0) {
#pragma unroll
              for (int j = 0; j < kColumns<K>; ++j)
                in.template load_column<N>(rows, start_column + (k + j) * strips.phases, taps[j]);
            }
            in.template use_column<N>(rows, start_column + k * strips.phases, taps[k % kColumns<K>], read,
                                      [&](int r, const float(&x)[N]) {
#pragma unroll
                                        for (int s = 0; s < K; ++s) add_product(sum[(k - s + K) % K], x, w[r * K + s]);
                                      });
            const int i = base + k - (K - 1), q = first + i * strips.phases;
            float(&done)[N] = sum[(k + 1) % K];
            if (i >= 0 && i < strips.length && q < strips.width) output.put(start + q, done);
#pragma unroll
            for (int c = 0; c < N; ++c) done[c] = 0.0f;
          }
        }
      } else {
#pragma unroll 1
        for (int q = first; q < first + strips.length && q < strips.width; ++q) {
          float sum[N] = {};
          Words<T, N> taps[kColumns<K>][K] = {};
#pragma unroll
          for (int s = 0; s < K; ++s) {
            const auto column = [&](int j) { return source<kTaps>(q, s + j, in.dilation, in.pad_left, in.width); };
            if (s % kColumns<K> == 0) {
#pragma unroll
              for (int j = 0; j < kColumns<K>; ++j) in.template load_column<N>(rows, column(j), taps[j]);
            }
            in.template use_column<N>(rows, column(0), taps[s % kColumns<K>], read,
                                      [&](int r, const float(&x)[N]) { add_product(sum, x, w[r * K + s]); });
          }
          output.put(start + q, sum);
        }
      }
    }
  }
  if constexpr (kSpread) store_chunk_spread(sums, output.spread, partial);
}

// moments (2, C) of `count` outputs, from the chunks' spreads in double. Geometry of sum_chunks.
__global__ void finish_moments_kernel(ChannelSums sums, int64_t count, const float* partial, float* moments) {
  const int c = static_cast<int>(blockIdx.x * kWarpSize + threadIdx.x);
  double sum[2] = {};  // sums of y and of y^2
  if (c < sums.channels) {
    for (int chunk = static_cast<int>(threadIdx.y); chunk < sums.chunks; chunk += kSplit) {
      const float* at = partial + static_cast<int64_t>(chunk) * kMoments * sums.channels + c;
      const auto n = static_cast<double>(at[0]), near = static_cast<double>(at[sums.channels]);
      const auto s = static_cast<double>(at[2 * sums.channels]), squares = static_cast<double>(at[3 * sums.channels]);
      sum[0] += s + n * near;
      sum[1] += squares + 2.0 * near * s + n * near * near;
    }
  }
  sum_splits(sum);
  if (threadIdx.y != 0 || c >= sums.channels) return;
  const double n = static_cast<double>(count), mean = sum[0] / n, var = sum[1] / n - mean * mean;
  moments[c] = static_cast<float>(mean);
  moments[sums.channels + c] = static_cast<float>(var < 0.0 ? 0.0 : var);
}
template <Taps taps, int K, class T>
void forward(Stream stream, const DepthwiseShape& s, const BatchNormInput& norm, const T* x, const float* weight, T* y,
             float* moments) {
  const auto C = static_cast<int>(s.C);
  const Strips strips(s.N * s.P(), s.Q(), s.stride, s.dilation, K, C / kWidth<T, K>);
  const Input<T> in{x,          static_cast<int>(s.H),  static_cast<int>(s.W), C, s.dilation, s.pad_top,
                    s.pad_left, static_cast<int>(s.P())};
  const ChannelSums sums = share<kWidth<T, K>>(strips, C);
  float* partial = nullptr;
  if (moments) partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(kMoments) * sizeof(float)));
  visit_channels<kWidth<T, K>, T>(C, norm, weight, x, y, nullptr, [&]<int N, bool kNorm>() {
    using Read = std::conditional_t<kNorm, Normalised<N>, Plain<N>>;
    visit_bool(moments != nullptr, [&]<bool kSpread>() {
      launch(depthwise_kernel<taps, K, T, N, Read, kSpread>, sums.grid(), kThreads, 0, stream, sums, strips, in, norm,
             weight, y, partial);
    });
  });
  if (!moments) return;
  launch(finish_moments_kernel, blocks_for(C, kWarpSize), kColumnBlock, 0, stream, sums, s.N * s.P() * s.Q(), partial,
         moments);
}

}  // namespace

template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const float* weight,
                      T* y, float* moments) {
  visit_shape<Taps::kStride2>(
      shape, [&]<Taps taps, int K>() { forward<taps, K>(stream, shape, norm, x, weight, y, moments); });
}

template void depthwise_conv2d(Stream, const DepthwiseShape&, BatchNormInput, const float*, const float*, float*,
                               float*);
template void depthwise_conv2d(Stream, const DepthwiseShape&, BatchNormInput, const bf16*, const float*, bf16*, float*);

}  // namespace depthstill::cuda
