// The CUDA kernels of depthwise convolutions walk along a map in strips of a row, N channels to a thread.
#pragma once

#include <type_traits>

#include "kernels/core/channel_sums.cuh"
#include "kernels/core/fast_math.cuh"
#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/depthwise/depthwise_conv2d.h"

namespace depthstill::cuda {

// Work is shared out in strips: `length` outputs of one row, `phases` columns apart. With phases = dilation, the inputs
// of neighbouring outputs of a strip are the same but for one column. Strips of a map are numbered row by row.
//
//   a row of 12 outputs at dilation 2 in strips of 3:   column   0  1  2  3  4  5  6  7  8  9 10 11
//                                                       strip    0  1  0  1  0  1  2  3  2  3  2  3
//   with K = 3, strip 0 reads the columns -2, 0, 2, 4, 6 once each, for its outputs 0, 2, 4
struct Strips {
  int rows, width;  // size of the map that is walked along, over all images
  int phases, length, per_row;

  // `stride` of what is read over what is walked along. Each strip reads K - 1 columns more than it has outputs, in
  // steps of K columns: long strips waste less, but each is the work of one thread for `groups` groups of channels.
  Strips(int64_t rows_, int64_t width_, int stride, int dilation, int K, int groups)
      : rows(static_cast<int>(rows_)), width(static_cast<int>(width_)), phases(stride == 1 ? dilation : 1) {
    constexpr int64_t kEnough = 1 << 17;  // threads: four times what an H100 runs at once
    const int count = (width + phases - 1) / phases;
    const auto pieces_of = [&](int most) { return (count + most - 1) / most; };
    int pieces = pieces_of(10 * K + 1);
    if (rows_ * phases * pieces * groups < kEnough) pieces = pieces_of(3 * K + 1);
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
      x[i] = min_or_nan(max_or_nan(x[i] * scale[i] + shift[i], low), high);
    }
    if constexpr (N == 1) {
      if (sigmoid) x[0] = __fdividef(1.0f, 1.0f + std::exp(-x[0]));
    }
  }
  // dz times the slope of the activation where it is z.
  __device__ __forceinline__ float through(float dz, float z) const {
    if constexpr (N == 1) {
      if (sigmoid) return dz * z * (1.0f - z);
    }
    return z > low && z < high ? dz : 0.0f;
  }
};

template <int kCount, int N>
__device__ __forceinline__ void load_weights(const float* weight, int C, bool flipped, float (&w)[kCount][N]) {
#pragma unroll
  for (int tap = 0; tap < kCount; ++tap) load_parameters(weight + (flipped ? kCount - 1 - tap : tap) * C, w[tap]);
}

// Tap t of output o reads this, along one axis.
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
  // Loads the taps of a column as they are stored; what is outside of the map is left as it is. Loading is apart from
  // use, so that a thread has the loads of a whole column, or of several, under way at once: this is what hides their
  // latency.
  template <int N, int K>
  __device__ __forceinline__ void load_column(const T* const (&rows)[K], int column, Words<T, N> (&taps)[K]) const {
    const bool inside = column >= 0 && column < width;
#pragma unroll
    for (int r = 0; r < K; ++r) {
      if (inside && rows[r] != nullptr) taps[r] = load_words<N>(rows[r] + static_cast<int64_t>(column) * C);
    }
  }
  // Calls f(r, values) for the taps of a column that are inside.
  template <int N, int K, class Read, class F>
  __device__ __forceinline__ void use_column(const T* const (&rows)[K], int column, const Words<T, N> (&taps)[K],
                                             const Read& read, const F& f) const {
    if (column < 0 || column >= width) return;
#pragma unroll
    for (int r = 0; r < K; ++r) {
      if (rows[r] == nullptr) continue;
      float values[N];
      to_floats<T>(taps[r], values);
      read(values);
      f(r, values);
    }
  }
};

// Columns whose loads are under way at once, as far as registers allow.
template <int K>
inline constexpr int kColumns = K == 3 ? 3 : 1;

template <int N>
__device__ __forceinline__ void add_product(float (&sum)[N], const float (&a)[N], const float (&b)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i] += a[i] * b[i];
}

// One strip is work enough for a thread, which has N channels.
template <int N>
ChannelSums share(const Strips& strips, int C) {
  return ChannelSums(strips.count(), C, ChannelSums::kThreads * N / ChannelSums::kSlab);
}

template <class F>
void visit_bool(bool value, const F& f) {
  value ? f.template operator()<true>() : f.template operator()<false>();
}

// Calls f.operator()<N, kNorm>(): packs of kWide channels where sizes and pointers allow, and whether there is a batch
// norm before the convolution.
template <int kWide, class T, class F>
void visit_channels(int C, const BatchNormInput& norm, const float* weight, const T* a, const T* b, const T* c,
                    const F& f) {
  constexpr int kPart = kWide < 4 ? kWide : 4;
  const bool wide = norm.act != Activation::kSigmoid && packable<kWide>(C, a, b, c) && packable<kPart>(C, weight);
  visit_bool(norm.mean != nullptr, [&]<bool kNorm>() {
    visit_bool(wide, [&]<bool kPacks>() { f.template operator()<kPacks ? kWide : 1, kNorm>(); });
  });
}

// Calls f.operator()<K, taps>(), `strided` being the taps of stride 2.
template <Taps strided, class F>
void visit_shape(const DepthwiseShape& s, const F& f) {
  visit_bool(s.stride == 1, [&]<bool kUnit>() {
    constexpr Taps taps = kUnit ? Taps::kStride1 : strided;
    s.kernel == 3 ? f.template operator()<taps, 3>() : f.template operator()<taps, 5>();
  });
}

}  // namespace depthstill::cuda
