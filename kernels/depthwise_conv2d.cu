#include "kernels/channel_sums.cuh"
#include "kernels/depthwise_conv2d.h"
#include "kernels/launch.h"
#include "kernels/pack.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = ChannelSums::kThreads;

// Channels of a thread. Weights, or the sums of dweight, stay in registers: 9 * 8 in bf16 and 25 * 4.
template <class T, int K>
inline constexpr int kWidth = K == 3 ? kPackSize<T> : 4;

// Outputs of a strip, at most: with K - 1 columns more to read, a multiple of K, by which the walk is unrolled.
template <int K>
inline constexpr int kStrip = 3 * K + 1;

// Work is shared out in strips: `length` outputs of one row, `phases` columns apart. With phases = dilation, the inputs
// of neighbouring outputs of a strip are the same but for one column. Strips of a map are numbered row by row.
struct Strips {
  int rows, width;  // of the map that is walked along, over all images
  int phases, length, per_row;

  // `stride` of what is read over what is walked along
  Strips(int64_t rows_, int64_t width_, int stride, int dilation, int most)
      : rows(static_cast<int>(rows_)), width(static_cast<int>(width_)), phases(stride == 1 ? dilation : 1) {
    const int count = (width + phases - 1) / phases, pieces = (count + most - 1) / most;
    length = (count + pieces - 1) / pieces;
    per_row = pieces * phases;
    check(rows_ * per_row <= 0x7fffffff, "depthwise_conv2d: expected less than 2^31 strips of a row, got ",
          rows_ * per_row);
  }
  int64_t count() const { return int64_t{rows} * per_row; }

  // Column of the first output; beyond the width for strips that a short phase does not need.
  __device__ __forceinline__ int first(int strip) const {
    const int j = strip % per_row;
    return j / phases * (phases * length) + j % phases;
  }
  __device__ __forceinline__ int row(int strip) const { return strip / per_row; }
};

// Inputs as they are.
template <int N>
struct Plain {
  __device__ __forceinline__ Plain(const BatchNormInput&, int) {}
  __device__ __forceinline__ void operator()(float (&)[N]) const {}
};

// Inputs through the batch norm. The activations are clamps that NaN passes; the sigmoid, which no encoder has before a
// depthwise convolution, is for N = 1 only.
template <int N>
struct Normalised {
  float scale[N], shift[N], low, high;
  bool sigmoid;

  __device__ __forceinline__ Normalised(const BatchNormInput& norm, int channel)
      : low(norm.act == Activation::kNone || norm.act == Activation::kSigmoid ? -INFINITY : 0.0f),
        high(norm.act == Activation::kRelu6 ? 6.0f : INFINITY),
        sigmoid(norm.act == Activation::kSigmoid) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      scale[i] = norm.rstd[channel + i] * norm.weight[channel + i];
      shift[i] = norm.bias[channel + i] - norm.mean[channel + i] * scale[i];
    }
  }
  __device__ __forceinline__ void operator()(float (&x)[N]) const {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float z = x[i] * scale[i] + shift[i];
      z = z < low ? low : z;
      x[i] = z > high ? high : z;
    }
    if constexpr (N == 1) {
      if (sigmoid) x[0] = __fdividef(1.0f, 1.0f + std::exp(-x[0]));
    }
  }
};

template <int kCount, int N>
__device__ __forceinline__ void load_weights(const float* weight, int C, bool flipped, float (&w)[kCount][N]) {
  constexpr int kPart = N < 4 ? N : 4;
#pragma unroll
  for (int tap = 0; tap < kCount; ++tap) {
    const float* from = weight + (flipped ? kCount - 1 - tap : tap) * C;
#pragma unroll
    for (int i = 0; i < N; i += kPart) {
      const Pack<float, kPart> part = load_pack<kPart>(from + i);
#pragma unroll
      for (int k = 0; k < kPart; ++k) w[tap][i + k] = part.lane[k];
    }
  }
}

// What the taps of an output read, along one axis.
enum class Taps {
  kStride1,      // o + t * dilation - pad; dx is the same with its taps and padding the other way round
  kStride2,      // 2 * o + t * dilation - pad
  kStride2Grad,  // (o + pad - t * dilation) / 2 where that is exact
};

// The position, or -1 outside of the map.
template <Taps taps>
__device__ __forceinline__ int source(int out, int t, int dilation, int pad, int in_size) {
  int in = (taps == Taps::kStride2 ? 2 * out : out) + t * dilation - pad;
  if (taps == Taps::kStride2Grad) {
    in = out + pad - t * dilation;
    if (in < 0 || in % 2 != 0) return -1;
    in /= 2;
  }
  return in >= 0 && in < in_size ? in : -1;
}

// in (N, height, width, C), as the taps of strips of an output (N, out_height, ...) read it.
template <class T>
struct Input {
  const T* x;
  int height, width, C, dilation, pad_top, pad_left, out_height;

  // Input rows of the taps of an output row, at `channel`; null outside of the map.
  template <Taps taps, int K>
  __device__ __forceinline__ void rows_of(int row, int channel, const T* (&rows)[K]) const {
    const int n = row / out_height, h = row % out_height;
#pragma unroll
    for (int r = 0; r < K; ++r) {
      const int from = source<taps>(h, r, dilation, pad_top, height);
      rows[r] = from < 0 ? nullptr : x + (static_cast<int64_t>(n) * height + from) * width * C + channel;
    }
  }
  // Calls f(tap, values) for every tap s + K * r in column `column` that is inside.
  template <int K, int N, class Read, class F>
  __device__ __forceinline__ void column_of(const T* const (&rows)[K], int column, const Read& read, const F& f) const {
    if (column < 0 || column >= width) return;
#pragma unroll
    for (int r = 0; r < K; ++r) {
      if (rows[r] == nullptr) continue;
      float values[N];
      load_floats(rows[r] + static_cast<int64_t>(column) * C, values);
      read(values);
      f(r, values);
    }
  }
};

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

// Where the outputs of a strip go, rounded; `spread` is that of what is stored.
template <class T, int N, bool kSpread>
struct Output {
  T* y;
  int64_t C;
  Spread<kSpread ? N : 1> spread;

  __device__ __forceinline__ Output(T* y_, int C_, int channel) : y(y_ + channel), C(C_) {}
  __device__ __forceinline__ void put(int64_t position, const float (&value)[N]) {
    Pack<T, N> pack;
    float stored[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      pack.lane[i] = static_cast<T>(value[i]);
      stored[i] = static_cast<float>(pack.lane[i]);
    }
    if constexpr (kSpread) spread.add(stored);
    store_pack(y + position * C, pack);
  }
};

template <int N>
__device__ __forceinline__ void add_product(float (&sum)[N], const float (&a)[N], const float (&b)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i] += a[i] * b[i];
}

// out[n,h,w,c] = sum over taps of z[n, source(h), source(w), c] * weight[tap, c], z = read(in): the forward pass or dx.
//   in (N, height, width, C)   weight (K, K, C)   out (N, out_height, strips.width, C)
//   partial: of store_chunk_spread, if kSpread
// Strips are the rows of ChannelSums; precondition: C % N == 0. At stride 1 a thread walks the columns of a strip: each
// input is loaded once per row of taps and goes into the sums of the K outputs that it belongs to, of which sum[i % K]
// is that of output i. Moves both maps once if the L1/L2 caches keep K rows. For K = 3, about 3.6 loads of 16 B and 72
// FMA (+ 90 instructions of the batch norm) per 8 bf16 outputs are below the time of their 32 B of DRAM traffic.
template <Taps taps, int K, class T, int N, class Read, bool kSpread>
__global__ void __launch_bounds__(kThreads, 2)
    depthwise_kernel(ChannelSums sums, Strips strips, Input<T> in, BatchNormInput norm,
                     const float* __restrict__ weight, bool flipped, T* __restrict__ out, float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  Output<T, N, kSpread> output(out, in.C, thread.channel);
  if (thread.inside) {
    const Read read(norm, thread.channel);
    float w[K * K][N];
    load_weights(weight + thread.channel, in.C, flipped, w);
#pragma unroll 1
    for (int64_t strip = thread.begin; strip < thread.end; strip += ChannelThread<N>::kRowStep) {
      const int first = strips.first(static_cast<int>(strip)), row = strips.row(static_cast<int>(strip));
      const int64_t start = static_cast<int64_t>(row) * strips.width;
      const T* rows[K];
      in.template rows_of<taps>(row, thread.channel, rows);
      if constexpr (taps == Taps::kStride1) {
        float sum[K][N] = {};
#pragma unroll 1
        for (int base = 0; base < strips.length + K - 1; base += K) {
#pragma unroll
          for (int k = 0; k < K; ++k) {
            in.template column_of<K, N>(rows, first + (base + k) * strips.phases - in.pad_left, read,
                                        [&](int r, const float(&x)[N]) {
#pragma unroll
                                          for (int s = 0; s < K; ++s)
                                            add_product(sum[(k - s + K) % K], x, w[r * K + s]);
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
#pragma unroll
          for (int s = 0; s < K; ++s) {
            in.template column_of<K, N>(rows, source<taps>(q, s, in.dilation, in.pad_left, in.width), read,
                                        [&](int r, const float(&x)[N]) { add_product(sum, x, w[r * K + s]); });
          }
          output.put(start + q, sum);
        }
      }
    }
  }
  if constexpr (kSpread) store_chunk_spread(sums, output.spread, partial);
}

// partial[chunk, tap, c] = sum over the chunk's outputs of dy * z at the tap.
//   in (N, H, W, C)   dy (N, P, Q, C)   partial (chunks, K * K, C)
// As depthwise_kernel, walking along dy, of which the last K values of the strip stay in registers beside K * K * N
// sums. Reads both maps once, as above.
template <Taps taps, int K, class T, int N, class Read>
__global__ void __launch_bounds__(kThreads, 2)
    depthwise_dweight_kernel(ChannelSums sums, Strips strips, Input<T> in, BatchNormInput norm,
                             const T* __restrict__ dy, float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  float sum[K * K][N] = {};
  if (thread.inside) {
    const Read read(norm, thread.channel);
#pragma unroll 1
    for (int64_t strip = thread.begin; strip < thread.end; strip += ChannelThread<N>::kRowStep) {
      const int first = strips.first(static_cast<int>(strip)), row = strips.row(static_cast<int>(strip));
      const T* dy_row = dy + static_cast<int64_t>(row) * strips.width * in.C + thread.channel;
      const T* rows[K];
      in.template rows_of<taps>(row, thread.channel, rows);
      if constexpr (taps == Taps::kStride1) {
        float d[K][N] = {};  // d[i % K] is dy of output i
#pragma unroll 1
        for (int base = 0; base < strips.length + K - 1; base += K) {
#pragma unroll
          for (int k = 0; k < K; ++k) {
            const int q = first + (base + k) * strips.phases;
            if (base + k < strips.length && q < strips.width) {
              load_floats(dy_row + static_cast<int64_t>(q) * in.C, d[k]);
            } else {
#pragma unroll
              for (int c = 0; c < N; ++c) d[k][c] = 0.0f;
            }
            in.template column_of<K, N>(rows, q - in.pad_left, read, [&](int r, const float(&x)[N]) {
#pragma unroll
              for (int s = 0; s < K; ++s) add_product(sum[r * K + s], x, d[(k - s + K) % K]);
            });
          }
        }
      } else {
#pragma unroll 1
        for (int q = first; q < first + strips.length && q < strips.width; ++q) {
          float d[N];
          load_floats(dy_row + static_cast<int64_t>(q) * in.C, d);
#pragma unroll
          for (int s = 0; s < K; ++s) {
            in.template column_of<K, N>(rows, source<taps>(q, s, in.dilation, in.pad_left, in.width), read,
                                        [&](int r, const float(&x)[N]) { add_product(sum[r * K + s], x, d); });
          }
        }
      }
    }
  }
  store_chunk_sums(sums, sum, partial);
}

// moments (2, C) of `count` outputs, from the chunks' spreads in double. Geometry of sum_chunks.
__global__ void finish_moments_kernel(ChannelSums sums, int64_t count, const float* partial, float* moments) {
  const int c = static_cast<int>(blockIdx.x * kWarpSize + threadIdx.x);
  double sum[2] = {};  // of y and of y^2
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

// One strip is work enough for a thread.
template <class T, int K>
ChannelSums share(const Strips& strips, int C) {
  return ChannelSums(strips.count(), C, kThreads * kWidth<T, K> / ChannelSums::kSlab);
}

template <class F>
void visit_bool(bool value, const F& f) {
  value ? f.template operator()<true>() : f.template operator()<false>();
}

// Calls f.operator()<N, Read>(): packs of channels where sizes and pointers allow, and what inputs go through.
template <class T, int K, class F>
void visit_channels(int C, const BatchNormInput& norm, const float* weight, const T* a, const T* b, const F& f) {
  const bool wide = norm.act != Activation::kSigmoid && packable<kWidth<T, K>>(C, a, b) && packable<4>(C, weight);
  visit_bool(norm.mean != nullptr, [&]<bool kNorm>() {
    visit_bool(wide, [&]<bool kWide>() {
      constexpr int N = kWide ? kWidth<T, K> : 1;
      f.template operator()<N, std::conditional_t<kNorm, Normalised<N>, Plain<N>>>();
    });
  });
}

template <Taps taps, int K, class T>
void forward(Stream stream, const DepthwiseShape& s, const BatchNormInput& norm, const T* x, const float* weight, T* y,
             float* moments) {
  const auto C = static_cast<int>(s.C);
  const Strips strips(s.N * s.P(), s.Q(), s.stride, s.dilation, kStrip<K>);
  const Input<T> in{x,          static_cast<int>(s.H),  static_cast<int>(s.W), C, s.dilation, s.pad_top,
                    s.pad_left, static_cast<int>(s.P())};
  const ChannelSums sums = share<T, K>(strips, C);
  float* partial = nullptr;
  if (moments) partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(kMoments) * sizeof(float)));
  visit_channels<T, K>(C, norm, weight, x, y, [&]<int N, class Read>() {
    visit_bool(moments != nullptr, [&]<bool kSpread>() {
      launch(depthwise_kernel<taps, K, T, N, Read, kSpread>, sums.grid(), kThreads, 0, stream, sums, strips, in, norm,
             weight, false, y, partial);
    });
  });
  if (!moments) return;
  launch(finish_moments_kernel, blocks_for(C, kWarpSize), kColumnBlock, 0, stream, sums, s.N * s.P() * s.Q(), partial,
         moments);
}

template <Taps taps, int K, class T>
void sum_dx(Stream stream, const DepthwiseShape& s, const T* dy, const float* weight, T* dx) {
  const auto C = static_cast<int>(s.C);
  const bool flip = taps == Taps::kStride1;
  const int reach = s.dilation * (K - 1);
  const Strips strips(s.N * s.H, s.W, s.stride, s.dilation, kStrip<K>);
  const Input<T> in{dy,
                    static_cast<int>(s.P()),
                    static_cast<int>(s.Q()),
                    C,
                    s.dilation,
                    flip ? reach - s.pad_top : s.pad_top,
                    flip ? reach - s.pad_left : s.pad_left,
                    static_cast<int>(s.H)};
  const ChannelSums sums = share<T, K>(strips, C);
  const BatchNormInput none;
  const auto run = [&]<int N>() {
    launch(depthwise_kernel<taps, K, T, N, Plain<N>, false>, sums.grid(), kThreads, 0, stream, sums, strips, in, none,
           weight, flip, dx, nullptr);
  };
  packable<kWidth<T, K>>(C, dy, dx) && packable<4>(C, weight) ? run.template operator()<kWidth<T, K>>()
                                                              : run.template operator()<1>();
}

template <Taps taps, int K, class T>
void sum_dweight(Stream stream, const DepthwiseShape& s, const BatchNormInput& norm, const T* x, const T* dy,
                 float* dweight) {
  const auto C = static_cast<int>(s.C);
  const Strips strips(s.N * s.P(), s.Q(), s.stride, s.dilation, kStrip<K>);
  const Input<T> in{x,          static_cast<int>(s.H),  static_cast<int>(s.W), C, s.dilation, s.pad_top,
                    s.pad_left, static_cast<int>(s.P())};
  const ChannelSums sums = share<T, K>(strips, C);
  auto* partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(K * K) * sizeof(float)));
  visit_channels<T, K>(C, norm, nullptr, x, dy, [&]<int N, class Read>() {
    launch(depthwise_dweight_kernel<taps, K, T, N, Read>, sums.grid(), kThreads, 0, stream, sums, strips, in, norm, dy,
           partial);
  });
  sum_chunks(stream, sums.chunks, K * K * C, partial, dweight);
}

// Calls f.operator()<K, taps>(), `strided` being the taps of stride 2.
template <Taps strided, class F>
void visit_shape(const DepthwiseShape& s, const F& f) {
  visit_bool(s.stride == 1, [&]<bool kUnit>() {
    constexpr Taps taps = kUnit ? Taps::kStride1 : strided;
    s.kernel == 3 ? f.template operator()<taps, 3>() : f.template operator()<taps, 5>();
  });
}

}  // namespace

template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const float* weight,
                      T* y, float* moments) {
  visit_shape<Taps::kStride2>(
      shape, [&]<Taps taps, int K>() { forward<taps, K>(stream, shape, norm, x, weight, y, moments); });
}

template <class T>
void depthwise_conv2d_dx(Stream stream, const DepthwiseShape& shape, const T* dy, const float* weight, T* dx) {
  visit_shape<Taps::kStride2Grad>(shape, [&]<Taps taps, int K>() { sum_dx<taps, K>(stream, shape, dy, weight, dx); });
}

template <class T>
void depthwise_conv2d_dweight(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const T* dy,
                              float* dweight) {
  visit_shape<Taps::kStride2>(shape,
                              [&]<Taps taps, int K>() { sum_dweight<taps, K>(stream, shape, norm, x, dy, dweight); });
}

template void depthwise_conv2d(Stream, const DepthwiseShape&, BatchNormInput, const float*, const float*, float*,
                               float*);
template void depthwise_conv2d(Stream, const DepthwiseShape&, BatchNormInput, const bf16*, const float*, bf16*, float*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const bf16*, const float*, bf16*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, BatchNormInput, const float*, const float*,
                                       float*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, BatchNormInput, const bf16*, const bf16*, float*);

}  // namespace depthstill::cuda
