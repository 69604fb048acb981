// Forward and both gradients walk the same structure: an output position reads the inputs of up to K taps per axis.
// Each axis is cut into runs of positions that have the same taps inside the map, so that the inner loops, which go
// over a block of channels and along a run, contain no branch. Weights (or the sums of dweight) stay in registers. A
// batch norm before the convolution is computed at every load, that is K times per element at stride 1: it costs less
// than to write its result and to read it again.
#include "kernels/depthwise_conv2d.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "kernels/channels.h"
#include "kernels/depthwise_runs.h"
#include "kernels/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kStrip = 16;            // positions per block of channels: amortises loading the weights
constexpr int64_t kGrainFlops = 1 << 16;  // multiply-adds worth a thread
constexpr int64_t kFlushRows = 8;         // rows of dweight summed in float before the sums go to double
constexpr int64_t kFlushOutputs = 64;     // the same for moments: at least a row, and about as many outputs

// Reads inputs as they are.
struct Plain {
  template <class V>
  struct Channels {
    Channels(const Plain&, int64_t) {}
    template <class T>
    V operator()(const T* x) const {
      return load<V>(x);
    }
  };
  bool one_by_one() const { return false; }
};

#if defined(__AVX512F__)
constexpr __mmask16 kAll = 0xffff;  // GCC 12 warns of what the intrinsics without a mask leave undefined
#endif

// The larger and the smaller of a bound and x, and NaN where x is: in one instruction, which the compiler does not
// find.
template <class V>
inline V max_of(V bound, V x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, Lanes>)
    return std::bit_cast<Lanes>(_mm512_maskz_max_ps(kAll, std::bit_cast<__m512>(bound), std::bit_cast<__m512>(x)));
#endif
  return bound > x ? bound : x;
}
template <class V>
inline V min_of(V bound, V x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, Lanes>)
    return std::bit_cast<Lanes>(_mm512_maskz_min_ps(kAll, std::bit_cast<__m512>(bound), std::bit_cast<__m512>(x)));
#endif
  return bound < x ? bound : x;
}

// Reads inputs through the batch norm. Its activations are clamps that NaN passes. The sigmoid, which no
// encoder has here, is for single channels: a call in the loop would put everything out of the registers.
struct Normalised {
  const float *scale, *shift;
  float low, high;
  bool sigmoid;

  Normalised(const BatchNormInput& norm, int64_t C, float* coefficients)
      : scale(coefficients),
        shift(coefficients + C),
        low(norm.act == Activation::kNone || norm.act == Activation::kSigmoid ? -kInfinity : 0.0f),
        high(norm.act == Activation::kRelu6 ? 6.0f : kInfinity),
        sigmoid(norm.act == Activation::kSigmoid) {
    for (int64_t c = 0; c < C; ++c) {
      coefficients[c] = norm.rstd[c] * norm.weight[c];
      coefficients[C + c] = norm.bias[c] - norm.mean[c] * coefficients[c];
    }
  }

  template <class V>
  struct Channels {
    V scale, shift, low, high;
    bool sigmoid;

    Channels(const Normalised& norm, int64_t c)
        : scale(load<V>(norm.scale + c)),
          shift(load<V>(norm.shift + c)),
          low(V{} + norm.low),
          high(V{} + norm.high),
          sigmoid(norm.sigmoid) {}
    template <class T>
    V operator()(const T* x) const {
      V z = min_of(high, max_of(low, load<V>(x) * scale + shift));
      if constexpr (std::is_same_v<V, float>) {
        if (sigmoid) z = activate<Activation::kSigmoid>(z);
      }
      return z;
    }
  };
  bool one_by_one() const { return sigmoid; }

 private:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();
};

// Outputs of which nothing is kept beside the map.
struct NoMoments {
  template <class V>
  struct Channels {
    Channels(const NoMoments&, int64_t) {}
    template <class T>
    void add(const T*) {}
    void finish() {}
  };
  void add_zeros(int64_t, int64_t) {}
  void has_outputs() {}
};

// Sums of d and of d^2 over outputs as they are stored, d being the difference to the first.
struct Moments {
  float *sum, *squares, *first;
  bool empty = true;

  template <class V>
  struct Channels {
    float *sum_at, *squares_at, *first_at;
    V sum, squares, first;
    bool empty;

    Channels(const Moments& moments, int64_t c)
        : sum_at(moments.sum + c),
          squares_at(moments.squares + c),
          first_at(moments.first + c),
          sum(load<V>(sum_at)),
          squares(load<V>(squares_at)),
          first(load<V>(first_at)),
          empty(moments.empty) {}
    template <class T>
    void add(const T* at) {
      const V y = load<V>(at);
      if (empty) first = y;
      empty = false;
      const V d = y - first;
      sum += d;
      squares += d * d;
    }
    void finish() {
      store(sum_at, sum);
      store(squares_at, squares);
      store(first_at, first);
    }
  };
  void add_zeros(int64_t count, int64_t C) {
    for (int64_t c = 0; c < C; ++c) {
      if (empty) first[c] = 0.0f;
      sum[c] -= static_cast<float>(count) * first[c];
      squares[c] += static_cast<float>(count) * first[c] * first[c];
    }
    empty = false;
  }
  void has_outputs() { empty = false; }
};

template <class Read, class Body>
inline void for_channels_of(const Read& read, int64_t C, const Body& body) {
  if (!read.one_by_one()) return for_channels(C, body);
  for (int64_t c = 0; c < C; ++c) body.template operator()<float>(c);
}

// Sums of `size` elements: in float over some rows, then in double, per thread, then over the threads in their order.
class Sums {
 public:
  // Also gives `floats` floats of scratch memory.
  Sums(Stream stream, int64_t size, int64_t floats = 0)
      : size_(static_cast<size_t>(size)),
        slot_((size_ + 15) / 16 * 16),  // whole cache lines: no false sharing
        parts_(static_cast<size_t>(num_threads())) {
    const size_t all = parts_ * slot_;
    totals_ = static_cast<double*>(
        stream.scratch->get(all * (sizeof(double) + sizeof(float)) + static_cast<size_t>(floats) * sizeof(float)));
    sums_ = reinterpret_cast<float*>(totals_ + all);
    std::fill_n(totals_, all, 0.0);
    std::fill_n(sums_, all, 0.0f);
  }
  float* floats() const { return sums_ + parts_ * slot_; }
  float* sum(int part) const { return sums_ + static_cast<size_t>(part) * slot_; }
  double* totals(int part) const { return totals_ + static_cast<size_t>(part) * slot_; }
  void clear(int part) const { std::fill_n(sum(part), size_, 0.0f); }
  void flush(int part) const {
    double* total = totals(part);
    const float* sums = sum(part);
    for (size_t i = 0; i < size_; ++i) total[i] += static_cast<double>(sums[i]);
    clear(part);
  }
  double total(int64_t i) const {
    double sum = 0.0;
    for (size_t part = 0; part < parts_; ++part) sum += totals_[part * slot_ + static_cast<size_t>(i)];
    return sum;
  }

 private:
  size_t size_, slot_, parts_;
  double* totals_;
  float* sums_;
};

// A piece of a run in one output row, as pointers: input of taps (r, s) is in[r] + column[s] + i * in_pitch.
template <int K, class In, class Out>
struct Strip {
  const In* in[K];
  int64_t column[K];
  Out* out;
  int64_t in_pitch, out_pitch, count, weight[K][K];  // weight: offsets of the taps' rows of C
  bool sliding;                                      // the input of tap s + 1 is that of tap s one position on
};

// Calls f(x) for every position i of the strip, x[r][s] being the inputs of its taps in channels c, c + 1, ...
template <int R, int S, class V, int K, class In, class Out, class Read, class F>
inline void for_positions(const Strip<K, In, Out>& strip, const Read& reader, int64_t c, const F& f) {
  const typename Read::template Channels<V> read(reader, c);
  const In* in[R];
  V x[R][S];
  for (int r = 0; r < R; ++r) in[r] = strip.in[r] + c;
  if (S == K && strip.sliding) {  // loads, and converts, each input once
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s + 1 < S; ++s) x[r][s + 1] = read(in[r] + strip.column[s]);
      in[r] += strip.column[S - 1];
    }
    for (int64_t i = 0; i < strip.count; ++i) {
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s + 1 < S; ++s) x[r][s] = x[r][s + 1];
        x[r][S - 1] = read(in[r] + i * strip.in_pitch);
      }
      f(i, x);
    }
    return;
  }
  for (int64_t i = 0; i < strip.count; ++i) {
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) x[r][s] = read(in[r] + strip.column[s] + i * strip.in_pitch);
    }
    f(i, x);
  }
}

template <int R, int S, class V, int K, class T, class Read, class Keep>
inline void correlate(const Strip<K, T, T>& strip, const Read& reader, const float* weight, const Keep& keep,
                      int64_t c) {
  typename Keep::template Channels<V> kept(keep, c);
  V w[R][S];
  for (int r = 0; r < R; ++r) {
    for (int s = 0; s < S; ++s) w[r][s] = load<V>(weight + strip.weight[r][s] + c);
  }
  for_positions<R, S, V>(strip, reader, c, [&](int64_t i, const V(&x)[R][S]) {
    V sum = {};
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) sum += w[r][s] * x[r][s];
    }
    T* to = strip.out + i * strip.out_pitch + c;
    store(to, sum);
    kept.add(to);
  });
  kept.finish();
}

// dweight += the strip's products; strip.out is dy.
template <int R, int S, class V, int K, class T, class Read>
inline void accumulate(const Strip<K, T, const T>& strip, const Read& reader, float* dweight, int64_t c) {
  V sum[R][S] = {};
  for_positions<R, S, V>(strip, reader, c, [&](int64_t i, const V(&x)[R][S]) {
    const V dy = load<V>(strip.out + i * strip.out_pitch + c);
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) sum[r][s] += dy * x[r][s];
    }
  });
  for (int r = 0; r < R; ++r) {
    for (int s = 0; s < S; ++s) {
      float* to = dweight + strip.weight[r][s] + c;
      store(to, load<V>(to) + sum[r][s]);
    }
  }
}

// Calls f.operator()<N>() for 1 <= n <= K.
template <int K, class F>
void visit_count(int n, const F& f) {
  if constexpr (K > 1) {
    if (n < K) return visit_count<K - 1>(n, f);
  }
  f.template operator()<K>();
}

// Cuts one run of one output row into strips: f.operator()<R, S>(strip).
template <int K, class In, class Out, class F>
void for_strips(const Run<K>& row, const Run<K>& run, const In* in, int64_t in_row, Out* out, int64_t C, const F& f) {
  Strip<K, In, Out> strip;
  strip.in_pitch = run.in_step * C;
  strip.out_pitch = run.out_step * C;
  strip.sliding = run.taps == K && run.in[1] - run.in[0] == run.in_step;
  for (int r = 0; r < row.taps; ++r) {
    for (int s = 0; s < run.taps; ++s) strip.weight[r][s] = (row.tap[r] * K + run.tap[s]) * C;
  }
  const auto with_taps = [&]<int R, int S>() {
    for (int64_t first = 0; first < run.count; first += kStrip) {
      strip.count = std::min(kStrip, run.count - first);
      strip.out = out + run.out * C + first * strip.out_pitch;
      for (int r = 0; r < R; ++r) strip.in[r] = in + row.in[r] * in_row;
      for (int s = 0; s < S; ++s) strip.column[s] = run.in[s] * C + first * strip.in_pitch;
      f.template operator()<R, S>(strip);
    }
  };
  visit_count<K>(row.taps,
                 [&]<int R>() { visit_count<K>(run.taps, [&]<int S>() { with_taps.template operator()<R, S>(); }); });
}

// Splits rows among the threads, in pieces of `most`: body(first, last, part).
template <class Body>
void for_row_blocks(int64_t rows, int64_t most, int64_t row_work, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kGrainFlops / row_work);
  parallel_ranges(rows, grain, [&](int64_t begin, int64_t end, int part) {
    for (int64_t first = begin; first < end; first += most) body(first, std::min(end, first + most), part);
  });
}

// out (N, rows.out_size, columns.out_size, C) = read(in), in (N, rows.in_size, columns.in_size, C), correlated with
// weight. keep_of(part) is told some outputs of a thread, then flush(part, number of outputs) is called.
template <int K, class T, class Read, class KeepOf, class Flush>
void correlate_maps(const DepthwiseShape& shape, Direction direction, const Read& read, const T* in,
                    const float* weight, T* out, const KeepOf& keep_of, const Flush& flush) {
  const Axis rows = vertical(shape, direction), columns = horizontal(shape, direction);
  const std::vector<Run<K>> row_list = positions_of<K>(rows), runs = runs_of<K>(columns, columns.dilation);
  const int64_t C = shape.C, in_row = columns.in_size * C, out_row = columns.out_size * C;
  const int64_t most = std::max<int64_t>(1, kFlushOutputs / columns.out_size);
  for_row_blocks(shape.N * rows.out_size, most, out_row * K * K, [&](int64_t begin, int64_t end, int part) {
    auto keep = keep_of(part);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t n = index / rows.out_size;
      const Run<K>& row = row_list[static_cast<size_t>(index % rows.out_size)];
      const T* from = in + n * rows.in_size * in_row;
      T* to = out + (n * rows.out_size + row.out) * out_row;
      for (const Run<K>& run : runs) {
        if (row.taps == 0 || run.taps == 0) {
          for (int64_t i = 0; i < run.count; ++i) std::fill_n(to + (run.out + i * run.out_step) * C, C, T(0.0f));
          keep.add_zeros(run.count, C);
          continue;
        }
        for_strips(row, run, from, in_row, to, C, [&]<int R, int S>(const Strip<K, T, T>& strip) {
          for_channels_of(read, C, [&]<class V>(int64_t c) { correlate<R, S, V>(strip, read, weight, keep, c); });
          keep.has_outputs();
        });
      }
    }
    flush(part, (end - begin) * columns.out_size);
  });
}

template <int K, class T, class Read>
void correlate_maps(const DepthwiseShape& shape, Direction direction, const Read& read, const T* in,
                    const float* weight, T* out) {
  correlate_maps<K>(
      shape, direction, read, in, weight, out, [](int) { return NoMoments{}; }, [](int, int64_t) {});
}

// Adds what Moments holds of n outputs, as sums of y and of y^2, to a thread's totals.
void flush_moments(const Sums& sums, int part, int64_t outputs, int64_t C) {
  const float *sum = sums.sum(part), *squares = sum + C, *first = squares + C;
  double* total = sums.totals(part);
  const auto n = static_cast<double>(outputs);
  for (int64_t c = 0; c < C; ++c) {
    const auto y = static_cast<double>(first[c]), s = static_cast<double>(sum[c]);
    total[c] += s + n * y;
    total[C + c] += static_cast<double>(squares[c]) + 2.0 * y * s + n * y * y;
  }
  sums.clear(part);
}

template <int K, class T>
void forward(Stream stream, const DepthwiseShape& shape, const BatchNormInput& norm, const T* x, const float* weight,
             T* y, float* moments) {
  const int64_t C = shape.C;
  const Sums sums(stream, moments ? 3 * C : 0, norm.mean ? 2 * C : 0);
  const auto with = [&](const auto& read) {
    if (!moments) return correlate_maps<K>(shape, Direction::kForward, read, x, weight, y);
    correlate_maps<K>(
        shape, Direction::kForward, read, x, weight, y,
        [&](int part) {
          float* sum = sums.sum(part);
          return Moments{sum, sum + C, sum + 2 * C};
        },
        [&](int part, int64_t outputs) { flush_moments(sums, part, outputs, C); });
    const auto n = static_cast<double>(shape.N * shape.P() * shape.Q());
    for (int64_t c = 0; c < C; ++c) {
      const double mean = sums.total(c) / n, var = sums.total(C + c) / n - mean * mean;
      moments[c] = static_cast<float>(mean);
      moments[C + c] = static_cast<float>(var < 0.0 ? 0.0 : var);  // NaN passes
    }
  };
  norm.mean ? with(Normalised(norm, C, sums.floats())) : with(Plain{});
}

template <int K, class T, class Read>
void sum_dweight(const DepthwiseShape& shape, const Read& read, const T* x, const T* dy, const Sums& sums) {
  const int64_t C = shape.C, P = shape.P(), in_row = shape.W * C, out_row = shape.Q() * C;
  const std::vector<Run<K>> rows = positions_of<K>(vertical(shape, Direction::kForward));
  const std::vector<Run<K>> runs = runs_of<K>(horizontal(shape, Direction::kForward), shape.dilation);
  for_row_blocks(shape.N * P, kFlushRows, out_row * K * K, [&](int64_t begin, int64_t end, int part) {
    float* sum = sums.sum(part);
    for (int64_t index = begin; index < end; ++index) {
      const Run<K>& row = rows[static_cast<size_t>(index % P)];
      const T* from = x + index / P * shape.H * in_row;
      const T* dy_row = dy + (index / P * P + row.out) * out_row;
      for (const Run<K>& run : runs) {
        if (row.taps == 0 || run.taps == 0) continue;
        for_strips(row, run, from, in_row, dy_row, C, [&]<int R, int S>(const Strip<K, T, const T>& strip) {
          for_channels_of(read, C, [&]<class V>(int64_t c) { accumulate<R, S, V>(strip, read, sum, c); });
        });
      }
    }
    sums.flush(part);
  });
}

template <int K, class T>
void sum_dweight(Stream stream, const DepthwiseShape& shape, const BatchNormInput& norm, const T* x, const T* dy,
                 float* dweight) {
  const int64_t C = shape.C, size = K * K * C;
  const Sums sums(stream, size, norm.mean ? 2 * C : 0);
  norm.mean ? sum_dweight<K>(shape, Normalised(norm, C, sums.floats()), x, dy, sums)
            : sum_dweight<K>(shape, Plain{}, x, dy, sums);
  for (int64_t i = 0; i < size; ++i) dweight[i] = static_cast<float>(sums.total(i));
}

}  // namespace

template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const float* weight,
                      T* y, float* moments) {
  shape.kernel == 3 ? forward<3>(stream, shape, norm, x, weight, y, moments)
                    : forward<5>(stream, shape, norm, x, weight, y, moments);
}

template <class T>
void depthwise_conv2d_dx(Stream, const DepthwiseShape& shape, const T* dy, const float* weight, T* dx) {
  shape.kernel == 3 ? correlate_maps<3>(shape, Direction::kBackward, Plain{}, dy, weight, dx)
                    : correlate_maps<5>(shape, Direction::kBackward, Plain{}, dy, weight, dx);
}

template <class T>
void depthwise_conv2d_dweight(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const T* dy,
                              float* dweight) {
  shape.kernel == 3 ? sum_dweight<3>(stream, shape, norm, x, dy, dweight)
                    : sum_dweight<5>(stream, shape, norm, x, dy, dweight);
}

template void depthwise_conv2d(Stream, const DepthwiseShape&, BatchNormInput, const float*, const float*, float*,
                               float*);
template void depthwise_conv2d(Stream, const DepthwiseShape&, BatchNormInput, const bf16*, const float*, bf16*, float*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const bf16*, const float*, bf16*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, BatchNormInput, const float*, const float*,
                                       float*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, BatchNormInput, const bf16*, const bf16*, float*);

}  // namespace depthstill::cpu
