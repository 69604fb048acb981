// Forward and both gradients walk the same structure: an output position reads the inputs of up to K taps per axis.
// Each axis is cut into runs of positions that have the same taps inside the map, so that the inner loops, which go
// over a block of channels and along a run, contain no branch. Weights (or the sums of dweight) stay in registers.
// Each number of rows and columns of taps that is frequent has loops of its own (visit_rows): all pairs of numbers
// would take the compiler a minute and more. A batch norm before the convolution is computed at every load, that is K
// times per element at stride 1: it costs less than to write its result and to read it again.
#include "kernels/depthwise/depthwise_conv2d.h"

#include <algorithm>
#include <vector>

#include "kernels/core/channels.h"
#include "kernels/core/column_sums.h"
#include "kernels/core/parallel.h"
#include "kernels/depthwise/depthwise_reads.h"
#include "kernels/depthwise/depthwise_runs.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kStrip = 16;            // positions per block of channels: amortises loading the weights
constexpr int kBlockPositions = 4;        // positions whose sums stay in registers
constexpr int64_t kGrainFlops = 1 << 16;  // multiply-adds worth a thread
constexpr int64_t kChunkRows = 8;         // most rows of dweight summed in float before the sums go to double
constexpr int64_t kBlockRows = 4;         // rows of moments in a block, less on small maps
constexpr int64_t kFlushOutputs = 64;     // the same for moments: at least a row, and about as many outputs

// Sums of d and of d^2 over outputs as they are stored, d being the difference to the first.
struct Moments {
  float *sum, *squares, *first;
  bool empty = true;

  // Adds `count` outputs of the channels from c.
  template <class V, class T>
  void add(const T* from, int64_t pitch, int64_t count, int64_t c) const {
    const V base = empty ? load<V>(from + c) : load<V>(first + c);
    V s = load<V>(sum + c), s2 = load<V>(squares + c);
    for (int64_t i = 0; i < count; ++i) {
      const V d = load<V>(from + i * pitch + c) - base;
      s += d;
      s2 += d * d;
    }
    store(sum + c, s);
    store(squares + c, s2);
    store(first + c, base);
  }
  void add_zeros(int64_t count, int64_t C) {
    for (int64_t c = 0; c < C; ++c) {
      if (empty) first[c] = 0.0f;
      sum[c] -= static_cast<float>(count) * first[c];
      squares[c] += static_cast<float>(count) * first[c] * first[c];
    }
    empty = false;
  }
};

// A piece of a run in one output row, for the channels from c: tap (r, s) of position i reads
// in[r * in_row + s * in_tap + i * in_pitch + c] with weight[r * weight_row + s * weight_tap + c].
template <class In, class Out>
struct Strip {
  const In* in;
  Out* out;
  int64_t in_row, in_tap, in_pitch, out_pitch, count, weight, weight_row, weight_tap;
  int rows;
  bool sliding() const { return in_tap == in_pitch; }  // tap s + 1 reads what tap s reads one position on
};

// Calls f(i, x) for every position i of a strip of R x S taps, x[r][s] being their inputs.
template <int R, int S, class V, class In, class Out, class Read, class F>
[[gnu::always_inline]] inline void for_all_taps(Strip<In, Out> strip, const Read& reader, int64_t c, const F& f) {
  const typename Read::template Channels<V> read(reader, c);
  const In* in[R];
  V x[R][S];
  for (int r = 0; r < R; ++r) in[r] = strip.in + r * strip.in_row + c;
  if (strip.sliding()) {  // loads, and converts, each input once
#pragma GCC unroll 5
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int s = 0; s + 1 < S; ++s) x[r][s + 1] = read(in[r] + s * strip.in_tap);
      in[r] += (S - 1) * strip.in_tap;
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
      for (int s = 0; s < S; ++s) x[r][s] = read(in[r] + s * strip.in_tap + i * strip.in_pitch);
    }
    f(i, x);
  }
}

template <int R, int S, class V, class T, class Read>
[[gnu::always_inline]] inline void correlate(Strip<T, T> strip, const Read& reader, const float* weight, int64_t c) {
  V w[R][S];
#pragma GCC unroll 5
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 5
    for (int s = 0; s < S; ++s) {
      w[r][s] = load<V>(weight + strip.weight + r * strip.weight_row + s * strip.weight_tap + c);
    }
  }
  for_all_taps<R, S, V>(strip, reader, c, [&](int64_t i, const V(&x)[R][S]) {
    V sum = {};
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) sum += w[r][s] * x[r][s];
    }
    store(strip.out + i * strip.out_pitch + c, sum);
  });
}

template <int R, int S, class V, class T, class Read>
[[gnu::always_inline]] inline void accumulate(Strip<T, const T> strip, const Read& reader, float* dweight, int64_t c) {
  V sum[R][S] = {};
  for_all_taps<R, S, V>(strip, reader, c, [&](int64_t i, const V(&x)[R][S]) {
    const V dy = load<V>(strip.out + i * strip.out_pitch + c);
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) sum[r][s] += dy * x[r][s];
    }
  });
#pragma GCC unroll 3
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 5
    for (int s = 0; s < S; ++s) {
      float* to = dweight + strip.weight + r * strip.weight_row + s * strip.weight_tap + c;
      store(to, load<V>(to) + sum[r][s]);
    }
  }
}

// B positions of a strip from the i-th: tap row by tap row, their sums staying in registers.
template <int S, int B, class V, class T, class Read>
[[gnu::always_inline]] inline void correlate_block(Strip<T, T> strip, const Read& read, const float* weight, int64_t i,
                                                   int64_t c) {
  V sum[B] = {};
  for (int r = 0; r < strip.rows; ++r) {
    const T* in = strip.in + r * strip.in_row + i * strip.in_pitch + c;
    const float* taps = weight + strip.weight + r * strip.weight_row + c;
    V w[S];
#pragma GCC unroll 5
    for (int s = 0; s < S; ++s) w[s] = load<V>(taps + s * strip.weight_tap);
#pragma GCC unroll 8
    for (int at = 0; at < B + S - 1; ++at) {  // input `at` is that of tap s of position at - s
      const V x = read(in + at * (B > 1 ? strip.in_pitch : strip.in_tap));
#pragma GCC unroll 5
      for (int s = 0; s < S; ++s) {
        if (s <= at && at - s < B) sum[at - s] += w[s] * x;
      }
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) store(strip.out + (i + b) * strip.out_pitch + c, sum[b]);
}

// Any number of rows of taps.
template <int S, class V, class T, class Read>
[[gnu::always_inline]] inline void correlate_rows(Strip<T, T> strip, const Read& reader, const float* weight,
                                                  int64_t c) {
  const typename Read::template Channels<V> read(reader, c);
  int64_t i = 0;
  if (S == 1 || strip.sliding()) {
    for (; i + kBlockPositions <= strip.count; i += kBlockPositions) {
      correlate_block<S, kBlockPositions, V>(strip, read, weight, i, c);
    }
  }
  for (; i < strip.count; ++i) correlate_block<S, 1, V>(strip, read, weight, i, c);
}

template <int R, int S, class V, class T, class Read>
[[gnu::always_inline]] inline void correlate_channels(const Strip<T, T>& strip, const Read& read, const float* weight,
                                                      int64_t c, const Moments* moments) {
  if constexpr (R != 0) correlate<R, S, V>(strip, read, weight, c);
  if constexpr (R == 0) correlate_rows<S, V>(strip, read, weight, c);
  if (moments) moments->add<V>(strip.out, strip.out_pitch, strip.count, c);
}

// All channels of a strip. R = 0: any number of rows of taps. It is not inlined, as one function of all of them would
// be too large to be compiled well; what is inside is inlined always, as the compiler does not see that registers
// count.
template <int R, int S, class T, class Read>
[[gnu::noinline]] void correlate_strip(const Strip<T, T>& strip, const Read& read, const float* weight, int64_t C,
                                       const Moments* moments) {
  const int64_t vectors = vector_channels(read, C);
  for (int64_t c = 0; c < vectors; c += kLanes) correlate_channels<R, S, Lanes>(strip, read, weight, c, moments);
  for (int64_t c = vectors; c < C; ++c) correlate_channels<R, S, float>(strip, read, weight, c, moments);
}

template <int R, int S, class T, class Read>
[[gnu::noinline]] void accumulate_strip(const Strip<T, const T>& strip, const Read& read, float* dweight, int64_t C) {
  const int64_t vectors = vector_channels(read, C);
  for (int64_t c = 0; c < vectors; c += kLanes) accumulate<R, S, Lanes>(strip, read, dweight, c);
  for (int64_t c = vectors; c < C; ++c) accumulate<R, S, float>(strip, read, dweight, c);
}

// Calls f.operator()<N>() for 1 <= n <= most.
template <int most, class F>
void visit_count(int n, const F& f) {
  if constexpr (most > 1) {
    if (n < most) return visit_count<most - 1>(n, f);
  }
  f.template operator()<most>();
}

// Calls f.operator()<R>() with the rows of taps, of S each, if they have loops of their own, else with 0. At stride 1
// these are all outputs of 3 x 3 taps, and those of 5 x 5 taps that are not near an edge.
template <int S, class F>
void visit_rows(int rows, const F& f) {
  if constexpr (S == 2 || S == 3) {
    if (rows == 2) return f.template operator()<2>();
    if (rows == 3) return f.template operator()<3>();
  }
  if constexpr (S == 5) {
    if (rows == 5) return f.template operator()<5>();
  }
  f.template operator()<0>();
}

// Cuts one run of one output row into strips: f.operator()<S>(strip), S being the taps in a row.
template <class In, class Out, class F>
void for_strips(const Run& row, const Run& run, int kernel, const In* in, int64_t in_row, Out* out, int64_t C,
                const F& f) {
  Strip<In, Out> strip;
  strip.in_row = row.in_of_tap * in_row;
  strip.in_tap = run.in_of_tap * C;
  strip.in_pitch = run.in_step * C;
  strip.out_pitch = run.out_step * C;
  strip.weight = (row.tap * kernel + run.tap) * C;
  strip.weight_row = row.tap_step * kernel * C;
  strip.weight_tap = run.tap_step * C;
  strip.rows = row.taps;
  visit_count<kMaxTaps>(run.taps, [&]<int S>() {
    for (int64_t first = 0; first < run.count; first += kStrip) {
      strip.count = std::min(kStrip, run.count - first);
      strip.in = in + row.in * in_row + run.in * C + first * strip.in_pitch;
      strip.out = out + run.out * C + first * strip.out_pitch;
      f.template operator()<S>(strip);
    }
  });
}

// Rows of outputs worth a thread.
int64_t grain_rows(const DepthwiseShape& shape, int64_t out_row) {
  return std::max<int64_t>(1, kGrainFlops / (out_row * shape.kernel * shape.kernel));
}

// Rows of outputs whose moments are summed in float.
int64_t flush_rows(int64_t columns) { return std::max<int64_t>(1, kFlushOutputs / columns); }

// Adds what Moments holds of n outputs, as sums of y and of y^2, to `totals`.
void flush_moments(const float* sums, int64_t n, int64_t C, double* totals) {
  const float *squares = sums + C, *first = squares + C;
  const auto count = static_cast<double>(n);
  for (int64_t c = 0; c < C; ++c) {
    const auto y = static_cast<double>(first[c]), s = static_cast<double>(sums[c]);
    totals[c] += s + count * y;
    totals[C + c] += static_cast<double>(squares[c]) + 2.0 * y * s + count * y * y;
  }
}

// out (N, rows.out_size, columns.out_size, C) = read(in), in (N, rows.in_size, columns.in_size, C), correlated with
// weight.
template <class T, class Read>
class Correlation {
 public:
  Correlation(const DepthwiseShape& shape, Direction direction, const Read& read, const T* in, const float* weight,
              T* out)
      : kernel_(shape.kernel),
        C_(shape.C),
        rows_(vertical(shape, direction)),
        columns_(horizontal(shape, direction)),
        row_list_(positions_of(rows_, kernel_)),
        runs_(runs_of(columns_, kernel_, columns_.dilation)),
        read_(read),
        in_(in),
        weight_(weight),
        out_(out),
        count_(shape.N * rows_.out_size),
        grain_(grain_rows(shape, columns_.out_size * C_)) {}

  // Assigns the rows [begin, end) of all images' outputs, whose moments are added to `moments`, if it is not null.
  void rows(int64_t begin, int64_t end, Moments* moments) const {
    const int64_t in_row = columns_.in_size * C_, out_row = columns_.out_size * C_;
    for (int64_t index = begin; index < end; ++index) {
      const int64_t n = index / rows_.out_size;
      const Run& row = row_list_[static_cast<size_t>(index % rows_.out_size)];
      const T* from = in_ + n * rows_.in_size * in_row;
      T* to = out_ + (n * rows_.out_size + row.out) * out_row;
      for (const Run& run : runs_) {
        if (row.taps == 0 || run.taps == 0) {
          for (int64_t i = 0; i < run.count; ++i) std::fill_n(to + (run.out + i * run.out_step) * C_, C_, T(0.0f));
          if (moments) moments->add_zeros(run.count, C_);
          continue;
        }
        for_strips(row, run, kernel_, from, in_row, to, C_, [&]<int S>(const Strip<T, T>& strip) {
          visit_rows<S>(strip.rows, [&]<int R>() { correlate_strip<R, S>(strip, read_, weight_, C_, moments); });
          if (moments) moments->empty = false;
        });
      }
    }
  }
  void all_rows() const {
    parallel_ranges(count_, grain_, [&](int64_t begin, int64_t end, int) { rows(begin, end, nullptr); });
  }
  // The row of the output that rows() numbers `index`.
  int64_t row_of(int64_t index) const {
    return index / rows_.out_size * rows_.out_size + row_list_[static_cast<size_t>(index % rows_.out_size)].out;
  }

 private:
  int kernel_;
  int64_t C_;
  Axis rows_, columns_;
  std::vector<Run> row_list_, runs_;
  Read read_;
  const T* in_;
  const float* weight_;
  T* out_;
  int64_t count_, grain_;
};

// A row of dx goes through the activation of the batch norm, in place, and is added to the sums of what is stored and
// of that times x - mean. It is not inlined: its loops want all registers.
template <class T>
[[gnu::noinline]] void through_norm(const Normalised& norm, const float* mean, int64_t positions, int64_t C, const T* x,
                                    T* dx, float* sums) {
  constexpr int64_t kAtOnce = 4;  // positions added per load and store of the sums
  const int64_t vectors = vector_channels(norm, C);
  const auto add = [&]<class V>(int64_t first, int64_t last, int64_t c) {
    const typename Normalised::Channels<V> read(norm, c);
    const V m = load<V>(mean + c);
    V s = load<V>(sums + c), s_centred = load<V>(sums + C + c);
    for (int64_t i = first; i < last; ++i) {
      const V from = load<V>(x + i * C + c);
      T* to = dx + i * C + c;
      store(to, norm.through(load<V>(to), read.normalise(from)));
      const V stored = load<V>(to);
      s += stored;
      s_centred += stored * (from - m);
    }
    store(sums + c, s);
    store(sums + C + c, s_centred);
  };
  for (int64_t first = 0; first < positions; first += kAtOnce) {
    const int64_t last = std::min(positions, first + kAtOnce);
    for (int64_t c = 0; c < vectors; c += kLanes) add.template operator()<Lanes>(first, last, c);
    for (int64_t c = vectors; c < C; ++c) add.template operator()<float>(first, last, c);
  }
}

// Rows for a block of sums over a map of `rows` rows.
int64_t block_rows(const DepthwiseShape& shape, int64_t rows, int64_t columns) {
  return std::max({grain_rows(shape, columns * shape.C), flush_rows(columns), std::min(kBlockRows, rows / 8)});
}

// f(first, last, totals, floats) for pieces of a block's rows that are few enough to be summed in float, `floats` being
// `count` zeros at first.
template <class F>
void for_pieces(const BlockSums& sums, int64_t columns, int64_t count, const F& f) {
  const int64_t most = flush_rows(columns);
  sums.add_blocks([&](int64_t begin, int64_t end, double* totals, float* floats) {
    for (int64_t first = begin; first < end; first += most) {
      std::fill_n(floats, count, 0.0f);
      f(first, std::min(end, first + most), totals, floats);
    }
  });
}

template <class T, class Read>
void sum_dweight(const DepthwiseShape& shape, const Read& read, const T* x, const T* dy, const ColumnSums& sums) {
  const int64_t C = shape.C, P = shape.P(), in_row = shape.W * C, out_row = shape.Q() * C;
  const std::vector<Run> rows = positions_of(vertical(shape, Direction::kForward), shape.kernel);
  const std::vector<Run> runs = runs_of(horizontal(shape, Direction::kForward), shape.kernel, shape.dilation);
  sums.add_rows([&](int64_t index, float* dweight) {
    const Run& row = rows[static_cast<size_t>(index % P)];
    const T* from = x + index / P * shape.H * in_row;
    const T* dy_row = dy + (index / P * P + row.out) * out_row;
    for (const Run& run : runs) {
      if (row.taps == 0 || run.taps == 0) continue;
      for_strips(row, run, shape.kernel, from, in_row, dy_row, C, [&]<int S>(Strip<T, const T> strip) {
        for (int taken = 0; strip.rows > 0; strip.rows -= taken) {
          taken = std::min(3, strip.rows);  // rows whose sums and inputs fit into the registers
          visit_count<3>(taken, [&]<int R>() { accumulate_strip<R, S>(strip, read, dweight, C); });
          strip.in += taken * strip.in_row;
          strip.weight += taken * strip.weight_row;
        }
      });
    }
  });
}

template <class T>
void assign_dweight(Stream stream, const DepthwiseShape& shape, const BatchNormInput& norm, const T* x, const T* dy,
                    float* dweight) {
  const int64_t C = shape.C, rows = shape.N * shape.P(), size = shape.kernel * shape.kernel * C;
  // Small maps are cut into more chunks than they need, for more threads.
  const int64_t chunk_rows = std::max(grain_rows(shape, shape.Q() * C), std::clamp<int64_t>(rows / 8, 2, kChunkRows));
  const ColumnSums sums(stream, rows, size, 1, chunk_rows, norm.mean ? 2 * C : 0);
  norm.mean ? sum_dweight(shape, Normalised(norm, C, sums.floats()), x, dy, sums)
            : sum_dweight(shape, Plain{}, x, dy, sums);
  sums.finish(0, dweight);
}

}  // namespace

template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const float* weight,
                      T* y, float* moments) {
  const int64_t C = shape.C, rows = shape.N * shape.P(), columns = shape.Q();
  const BlockSums sums(stream, rows, block_rows(shape, rows, columns), moments ? 2 * C : 0, moments ? 3 * C : 0,
                       norm.mean ? 2 * C : 0);
  const auto with = [&](const auto& read) {
    const Correlation correlation(shape, Direction::kForward, read, x, weight, y);
    if (!moments) return correlation.all_rows();
    for_pieces(sums, columns, 3 * C, [&](int64_t first, int64_t last, double* totals, float* floats) {
      Moments of_rows{floats, floats + C, floats + 2 * C};
      correlation.rows(first, last, &of_rows);
      flush_moments(floats, (last - first) * columns, C, totals);
    });
  };
  norm.mean ? with(Normalised(norm, C, sums.more())) : with(Plain{});
  if (!moments) return;
  const double* totals = sums.finish();
  const auto n = static_cast<double>(rows * columns);
  for (int64_t c = 0; c < C; ++c) {
    const double mean = totals[c] / n, var = totals[C + c] / n - mean * mean;
    moments[c] = static_cast<float>(mean);
    moments[C + c] = static_cast<float>(var < 0.0 ? 0.0 : var);  // NaN passes
  }
}

template <class T>
void depthwise_conv2d_grad(Stream stream, const DepthwiseShape& shape, BatchNormInput norm, const T* x, const T* dy,
                           const float* weight, T* dx, float* dweight, float* sums) {
  if (dweight) assign_dweight(stream, shape, norm, x, dy, dweight);
  if (!dx) return;
  const Correlation correlation(shape, Direction::kBackward, Plain{}, dy, weight, dx);
  if (!norm.mean) return correlation.all_rows();
  const int64_t C = shape.C, rows = shape.N * shape.H, columns = shape.W;
  const BlockSums block_sums(stream, rows, block_rows(shape, rows, columns), 2 * C, 2 * C, 2 * C);
  const Normalised read(norm, C, block_sums.more());
  for_pieces(block_sums, columns, 2 * C, [&](int64_t first, int64_t last, double* totals, float* floats) {
    for (int64_t index = first; index < last; ++index) {
      correlation.rows(index, index + 1, nullptr);
      const int64_t at = correlation.row_of(index) * columns * C;
      through_norm(read, norm.mean, columns, C, x + at, dx + at, floats);
    }
    for (int64_t i = 0; i < 2 * C; ++i) totals[i] += static_cast<double>(floats[i]);
  });
  const double* totals = block_sums.finish();
  for (int64_t i = 0; i < 2 * C; ++i) sums[i] = static_cast<float>(totals[i]);
}

template void depthwise_conv2d(Stream, const DepthwiseShape&, BatchNormInput, const float*, const float*, float*,
                               float*);
template void depthwise_conv2d(Stream, const DepthwiseShape&, BatchNormInput, const bf16*, const float*, bf16*, float*);
template void depthwise_conv2d_grad(Stream, const DepthwiseShape&, BatchNormInput, const float*, const float*,
                                    const float*, float*, float*, float*);
template void depthwise_conv2d_grad(Stream, const DepthwiseShape&, BatchNormInput, const bf16*, const bf16*,
                                    const float*, bf16*, float*, float*);

}  // namespace depthstill::cpu
