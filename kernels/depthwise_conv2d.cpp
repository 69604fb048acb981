// Forward and both gradients walk the same structure: an output position reads the inputs of up to K taps per axis.
// Each axis is cut into runs of positions that have the same taps inside the map, so that the inner loops, which go
// over a block of channels and along a run, contain no branch. Weights (or the sums of dweight) stay in registers.
#include "kernels/depthwise_conv2d.h"

#include <algorithm>
#include <vector>

#include "kernels/channels.h"
#include "kernels/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kStrip = 16;            // positions per block of channels: amortises loading the weights
constexpr int64_t kGrainFlops = 1 << 16;  // multiply-adds worth a thread
constexpr int64_t kFlushRows = 8;         // rows summed in float before the sums go to double

// Outputs out + i * out_step, 0 <= i < count, read inputs in[t] + i * in_step with weight tap[t], 0 <= t < taps.
template <int K>
struct Run {
  int64_t out, out_step, count, in_step;
  int taps;
  int64_t in[K];
  int tap[K];
};

enum class Direction { kForward, kBackward };

struct Axis {
  int64_t out_size, in_size;
  int stride, dilation, pad;
  Direction direction;
};

// Covers an axis with runs. Position o reads o * stride + t * dilation - pad forward, and in the gradient
// (o + pad - t * dilation) / stride where that is exact. Positions are visited `phases` apart.
template <int K>
std::vector<Run<K>> runs_of(const Axis& axis, int phases) {
  const bool forward = axis.direction == Direction::kForward;
  const int mul = forward ? axis.stride : 1, div = forward ? 1 : axis.stride;
  const int64_t period = int64_t{phases} * div, in_step = int64_t{phases} * mul;
  std::vector<Run<K>> runs;
  for (int64_t first = 0; first < std::min(period, axis.out_size); ++first) {
    const int64_t count = (axis.out_size - first + period - 1) / period;
    int64_t in[K], begin[K], end[K];  // tap t is inside the map for begin <= i < end
    std::vector<int64_t> cuts = {0, count};
    for (int t = 0; t < K; ++t) {
      const int64_t shift = int64_t{t} * axis.dilation - axis.pad, numerator = first * mul + (forward ? shift : -shift);
      in[t] = numerator / div;
      begin[t] = in[t] >= 0 ? 0 : std::min(count, (-in[t] + in_step - 1) / in_step);
      end[t] = in[t] >= axis.in_size ? 0 : std::min(count, (axis.in_size - 1 - in[t]) / in_step + 1);
      if (numerator % div != 0) begin[t] = end[t] = 0;
      cuts.push_back(begin[t]);
      cuts.push_back(end[t]);
    }
    std::sort(cuts.begin(), cuts.end());
    for (size_t cut = 0; cut + 1 < cuts.size(); ++cut) {
      const int64_t i = cuts[cut];
      if (i == cuts[cut + 1]) continue;
      Run<K> run{first + i * period, period, cuts[cut + 1] - i, in_step, 0, {}, {}};
      for (int k = 0; k < K; ++k) {  // from the smallest input position to the largest
        const int t = forward ? k : K - 1 - k;
        if (begin[t] > i || end[t] <= i) continue;
        run.in[run.taps] = in[t] + i * in_step;
        run.tap[run.taps++] = t;
      }
      runs.push_back(run);
    }
  }
  return runs;
}

// The runs of an axis position by position. With phases = dilation, neighbours in this order share input rows, which
// are then still in the cache.
template <int K>
std::vector<Run<K>> positions_of(const Axis& axis) {
  std::vector<Run<K>> positions;
  for (const Run<K>& run : runs_of<K>(axis, axis.dilation)) {
    for (int64_t i = 0; i < run.count; ++i) {
      Run<K> one = run;
      one.out += i * run.out_step;
      for (int t = 0; t < run.taps; ++t) one.in[t] += i * run.in_step;
      one.count = 1;
      positions.push_back(one);
    }
  }
  return positions;
}

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
template <int R, int S, class V, int K, class In, class Out, class F>
inline void for_positions(const Strip<K, In, Out>& strip, int64_t c, const F& f) {
  const In* in[R];
  V x[R][S];
  for (int r = 0; r < R; ++r) in[r] = strip.in[r] + c;
  if (S == K && strip.sliding) {  // loads, and converts, each input once
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s + 1 < S; ++s) x[r][s + 1] = load<V>(in[r] + strip.column[s]);
      in[r] += strip.column[S - 1];
    }
    for (int64_t i = 0; i < strip.count; ++i) {
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s + 1 < S; ++s) x[r][s] = x[r][s + 1];
        x[r][S - 1] = load<V>(in[r] + i * strip.in_pitch);
      }
      f(i, x);
    }
    return;
  }
  for (int64_t i = 0; i < strip.count; ++i) {
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) x[r][s] = load<V>(in[r] + strip.column[s] + i * strip.in_pitch);
    }
    f(i, x);
  }
}

template <int R, int S, class V, int K, class T>
inline void correlate(const Strip<K, T, T>& strip, const float* weight, int64_t c) {
  V w[R][S];
  for (int r = 0; r < R; ++r) {
    for (int s = 0; s < S; ++s) w[r][s] = load<V>(weight + strip.weight[r][s] + c);
  }
  for_positions<R, S, V>(strip, c, [&](int64_t i, const V(&x)[R][S]) {
    V sum = {};
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) sum += w[r][s] * x[r][s];
    }
    store(strip.out + i * strip.out_pitch + c, sum);
  });
}

// dweight += the strip's products; strip.out is dy.
template <int R, int S, class V, int K, class T>
inline void accumulate(const Strip<K, T, const T>& strip, float* dweight, int64_t c) {
  V sum[R][S] = {};
  for_positions<R, S, V>(strip, c, [&](int64_t i, const V(&x)[R][S]) {
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

// out (N, rows.out_size, columns.out_size, C) = in (N, rows.in_size, columns.in_size, C) correlated with weight.
template <int K, class T>
void correlate_maps(int64_t N, int64_t C, const Axis& rows, const Axis& columns, const T* in, const float* weight,
                    T* out) {
  const std::vector<Run<K>> row_list = positions_of<K>(rows), runs = runs_of<K>(columns, columns.dilation);
  const int64_t in_row = columns.in_size * C, out_row = columns.out_size * C;
  const int64_t grain = std::max<int64_t>(1, kGrainFlops / (out_row * K * K));
  parallel_for(N * rows.out_size, grain, [&](int64_t index) {
    const int64_t n = index / rows.out_size;
    const Run<K>& row = row_list[static_cast<size_t>(index % rows.out_size)];
    const T* from = in + n * rows.in_size * in_row;
    T* to = out + (n * rows.out_size + row.out) * out_row;
    for (const Run<K>& run : runs) {
      if (row.taps == 0 || run.taps == 0) {
        for (int64_t i = 0; i < run.count; ++i) std::fill_n(to + (run.out + i * run.out_step) * C, C, T(0.0f));
        continue;
      }
      for_strips(row, run, from, in_row, to, C, [&]<int R, int S>(const Strip<K, T, T>& strip) {
        for_channels(C, [&]<class V>(int64_t c) { correlate<R, S, V>(strip, weight, c); });
      });
    }
  });
}

Axis vertical(const DepthwiseShape& s, Direction direction) {
  return direction == Direction::kForward ? Axis{s.P(), s.H, s.stride, s.dilation, s.pad_top, direction}
                                          : Axis{s.H, s.P(), s.stride, s.dilation, s.pad_top, direction};
}

Axis horizontal(const DepthwiseShape& s, Direction direction) {
  return direction == Direction::kForward ? Axis{s.Q(), s.W, s.stride, s.dilation, s.pad_left, direction}
                                          : Axis{s.W, s.Q(), s.stride, s.dilation, s.pad_left, direction};
}

template <class T>
void correlate_maps(const DepthwiseShape& shape, Direction direction, const T* in, const float* weight, T* out) {
  const Axis rows = vertical(shape, direction), columns = horizontal(shape, direction);
  shape.kernel == 3 ? correlate_maps<3>(shape.N, shape.C, rows, columns, in, weight, out)
                    : correlate_maps<5>(shape.N, shape.C, rows, columns, in, weight, out);
}

template <int K, class T>
void sum_dweight(Stream stream, const DepthwiseShape& shape, const T* x, const T* dy, float* dweight) {
  const int64_t C = shape.C, P = shape.P(), in_row = shape.W * C, out_row = shape.Q() * C;
  const std::vector<Run<K>> rows = positions_of<K>(vertical(shape, Direction::kForward));
  const std::vector<Run<K>> runs = runs_of<K>(horizontal(shape, Direction::kForward), shape.dilation);
  const auto size = static_cast<size_t>(K * K * C);
  const size_t slot = (size + 15) / 16 * 16;  // whole cache lines: no false sharing
  const auto parts = static_cast<size_t>(num_threads());
  auto* totals = static_cast<double*>(stream.scratch->get(parts * slot * (sizeof(double) + sizeof(float))));
  auto* sums = reinterpret_cast<float*>(totals + parts * slot);
  std::fill_n(totals, parts * slot, 0.0);

  const int64_t grain = std::max<int64_t>(kFlushRows, kGrainFlops / (out_row * K * K));
  parallel_ranges(shape.N * P, grain, [&](int64_t begin, int64_t end, int part) {
    double* total = totals + static_cast<size_t>(part) * slot;
    float* sum = sums + static_cast<size_t>(part) * slot;
    for (int64_t first = begin; first < end; first += kFlushRows) {
      std::fill_n(sum, size, 0.0f);
      for (int64_t index = first; index < std::min(end, first + kFlushRows); ++index) {
        const Run<K>& row = rows[static_cast<size_t>(index % P)];
        const T* from = x + index / P * shape.H * in_row;
        const T* dy_row = dy + (index / P * P + row.out) * out_row;
        for (const Run<K>& run : runs) {
          for_strips(row, run, from, in_row, dy_row, C, [&]<int R, int S>(const Strip<K, T, const T>& strip) {
            for_channels(C, [&]<class V>(int64_t c) { accumulate<R, S, V>(strip, sum, c); });
          });
        }
      }
      for (size_t i = 0; i < size; ++i) total[i] += static_cast<double>(sum[i]);
    }
  });
  for (size_t i = 0; i < size; ++i) {
    double sum = 0.0;
    for (size_t part = 0; part < parts; ++part) sum += totals[part * slot + i];
    dweight[i] = static_cast<float>(sum);
  }
}

}  // namespace

template <class T>
void depthwise_conv2d(Stream, const DepthwiseShape& shape, const T* x, const float* weight, T* y) {
  correlate_maps(shape, Direction::kForward, x, weight, y);
}

template <class T>
void depthwise_conv2d_dx(Stream, const DepthwiseShape& shape, const T* dy, const float* weight, T* dx) {
  correlate_maps(shape, Direction::kBackward, dy, weight, dx);
}

template <class T>
void depthwise_conv2d_dweight(Stream stream, const DepthwiseShape& shape, const T* x, const T* dy, float* dweight) {
  shape.kernel == 3 ? sum_dweight<3>(stream, shape, x, dy, dweight) : sum_dweight<5>(stream, shape, x, dy, dweight);
}

template void depthwise_conv2d(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d(Stream, const DepthwiseShape&, const bf16*, const float*, bf16*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const bf16*, const float*, bf16*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, const bf16*, const bf16*, float*);

}  // namespace depthstill::cpu
