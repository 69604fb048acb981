// Forward and both gradients walk the same structure: an output position reads the inputs of up to three taps per axis.
// Each axis is cut into runs of positions that have the same taps inside the map, so that the inner loops, which go
// over a block of channels and along a run, contain no branch. Weights (or the sums of dweight) stay in registers.
#include "kernels/depthwise_conv2d.h"

#include <algorithm>
#include <vector>

#include "kernels/channels.h"
#include "kernels/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int kTaps = 3;
constexpr int64_t kStrip = 16;            // positions per block of channels: amortises loading the weights
constexpr int64_t kGrainFlops = 1 << 16;  // multiply-adds worth a thread
constexpr int64_t kFlushRows = 8;         // rows summed in float before the sums go to double

// Outputs out + i * out_step, 0 <= i < count, read inputs in[t] + i * in_step with weight tap[t], 0 <= t < taps.
struct Run {
  int64_t out, out_step, count, in_step;
  int taps;
  int64_t in[kTaps];
  int tap[kTaps];
};

enum class Direction { kForward, kBackward };

struct Axis {
  int64_t out_size, in_size;
  int stride, dilation;
  Direction direction;
};

// Covers an axis with runs. Position o reads (o * stride + (t - 1) * dilation) forward, and in the gradient
// (o - (t - 1) * dilation) / stride where that is exact. Positions are visited `phases` apart.
std::vector<Run> runs_of(const Axis& axis, int phases) {
  const bool forward = axis.direction == Direction::kForward;
  const int mul = forward ? axis.stride : 1, div = forward ? 1 : axis.stride;
  const int64_t period = int64_t{phases} * div, in_step = int64_t{phases} * mul;
  std::vector<Run> runs;
  for (int64_t first = 0; first < std::min(period, axis.out_size); ++first) {
    const int64_t count = (axis.out_size - first + period - 1) / period;
    int64_t in[kTaps], begin[kTaps], end[kTaps];  // tap t is inside the map for begin <= i < end
    std::vector<int64_t> cuts = {0, count};
    for (int t = 0; t < kTaps; ++t) {
      const int64_t numerator = first * mul + (forward ? t - 1 : 1 - t) * int64_t{axis.dilation};
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
      Run run{first + i * period, period, cuts[cut + 1] - i, in_step, 0, {}, {}};
      for (int k = 0; k < kTaps; ++k) {  // from the smallest input position to the largest
        const int t = forward ? k : kTaps - 1 - k;
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
std::vector<Run> positions_of(const Axis& axis) {
  std::vector<Run> positions;
  for (const Run& run : runs_of(axis, axis.dilation)) {
    for (int64_t i = 0; i < run.count; ++i) {
      Run one = run;
      one.out += i * run.out_step;
      for (int t = 0; t < run.taps; ++t) one.in[t] += i * run.in_step;
      one.count = 1;
      positions.push_back(one);
    }
  }
  return positions;
}

// A piece of a run in one output row, as pointers: input of taps (r, s) is in[r] + column[s] + i * in_pitch.
template <class In, class Out>
struct Strip {
  const In* in[kTaps];
  int64_t column[kTaps];
  Out* out;
  int64_t in_pitch, out_pitch, count, weight[kTaps][kTaps];  // weight: offsets of the taps' rows of C
  bool sliding;                                              // the input of tap s + 1 is that of tap s one position on
};

// Calls f(x) for every position i of the strip, x[r][s] being the inputs of its taps in channels c, c + 1, ...
template <int R, int S, class V, class In, class Out, class F>
inline void for_positions(const Strip<In, Out>& strip, int64_t c, const F& f) {
  const In* in[R];
  V x[R][S];
  for (int r = 0; r < R; ++r) in[r] = strip.in[r] + c;
  if (S == kTaps && strip.sliding) {  // loads, and converts, each input once
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

template <int R, int S, class V, class T>
inline void correlate(const Strip<T, T>& strip, const float* weight, int64_t c) {
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
template <int R, int S, class V, class T>
inline void accumulate(const Strip<T, const T>& strip, float* dweight, int64_t c) {
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

// Calls f.operator()<R, S>() for 1 <= R, S <= 3 taps.
template <class F>
void visit_taps(int rows, int columns, const F& f) {
  const auto with_rows = [&]<int R>() {
    if (columns == 1) return f.template operator()<R, 1>();
    if (columns == 2) return f.template operator()<R, 2>();
    return f.template operator()<R, 3>();
  };
  if (rows == 1) return with_rows.template operator()<1>();
  if (rows == 2) return with_rows.template operator()<2>();
  return with_rows.template operator()<3>();
}

// Cuts one run of one output row into strips: f.operator()<R, S>(strip).
template <class In, class Out, class F>
void for_strips(const Run& row, const Run& run, const In* in, int64_t in_row, Out* out, int64_t C, const F& f) {
  Strip<In, Out> strip;
  strip.in_pitch = run.in_step * C;
  strip.out_pitch = run.out_step * C;
  strip.sliding = run.taps == kTaps && run.in[1] - run.in[0] == run.in_step;
  for (int r = 0; r < row.taps; ++r) {
    for (int s = 0; s < run.taps; ++s) strip.weight[r][s] = (row.tap[r] * kTaps + run.tap[s]) * C;
  }
  visit_taps(row.taps, run.taps, [&]<int R, int S>() {
    for (int64_t first = 0; first < run.count; first += kStrip) {
      strip.count = std::min(kStrip, run.count - first);
      strip.out = out + run.out * C + first * strip.out_pitch;
      for (int r = 0; r < R; ++r) strip.in[r] = in + row.in[r] * in_row;
      for (int s = 0; s < S; ++s) strip.column[s] = run.in[s] * C + first * strip.in_pitch;
      f.template operator()<R, S>(strip);
    }
  });
}

// out (N, rows.out_size, columns.out_size, C) = in (N, rows.in_size, columns.in_size, C) correlated with weight.
template <class T>
void correlate_maps(int64_t N, int64_t C, const Axis& rows, const Axis& columns, const T* in, const float* weight,
                    T* out) {
  const std::vector<Run> row_list = positions_of(rows), runs = runs_of(columns, columns.dilation);
  const int64_t in_row = columns.in_size * C, out_row = columns.out_size * C;
  const int64_t grain = std::max<int64_t>(1, kGrainFlops / (out_row * kTaps * kTaps));
  parallel_for(N * rows.out_size, grain, [&](int64_t index) {
    const int64_t n = index / rows.out_size;
    const Run& row = row_list[static_cast<size_t>(index % rows.out_size)];
    const T* from = in + n * rows.in_size * in_row;
    T* to = out + (n * rows.out_size + row.out) * out_row;
    for (const Run& run : runs) {
      if (row.taps == 0 || run.taps == 0) {
        for (int64_t i = 0; i < run.count; ++i) std::fill_n(to + (run.out + i * run.out_step) * C, C, T(0.0f));
        continue;
      }
      for_strips(row, run, from, in_row, to, C, [&]<int R, int S>(const Strip<T, T>& strip) {
        for_channels(C, [&]<class V>(int64_t c) { correlate<R, S, V>(strip, weight, c); });
      });
    }
  });
}

Axis vertical(const DepthwiseShape& shape, Direction direction) {
  return direction == Direction::kForward ? Axis{shape.P(), shape.H, shape.stride, shape.dilation, direction}
                                          : Axis{shape.H, shape.P(), shape.stride, shape.dilation, direction};
}

Axis horizontal(const DepthwiseShape& shape, Direction direction) {
  return direction == Direction::kForward ? Axis{shape.Q(), shape.W, shape.stride, shape.dilation, direction}
                                          : Axis{shape.W, shape.Q(), shape.stride, shape.dilation, direction};
}

}  // namespace

template <class T>
void depthwise_conv2d(Stream, const DepthwiseShape& shape, const T* x, const float* weight, T* y) {
  correlate_maps(shape.N, shape.C, vertical(shape, Direction::kForward), horizontal(shape, Direction::kForward), x,
                 weight, y);
}

template <class T>
void depthwise_conv2d_dx(Stream, const DepthwiseShape& shape, const T* dy, const float* weight, T* dx) {
  correlate_maps(shape.N, shape.C, vertical(shape, Direction::kBackward), horizontal(shape, Direction::kBackward), dy,
                 weight, dx);
}

template <class T>
void depthwise_conv2d_dweight(Stream stream, const DepthwiseShape& shape, const T* x, const T* dy, float* dweight) {
  const int64_t C = shape.C, P = shape.P(), in_row = shape.W * C, out_row = shape.Q() * C;
  const std::vector<Run> rows = positions_of(vertical(shape, Direction::kForward));
  const std::vector<Run> runs = runs_of(horizontal(shape, Direction::kForward), shape.dilation);
  const auto size = static_cast<size_t>(kTaps * kTaps * C);
  const size_t slot = (size + 15) / 16 * 16;  // whole cache lines: no false sharing
  const auto parts = static_cast<size_t>(num_threads());
  auto* totals = static_cast<double*>(stream.scratch->get(parts * slot * (sizeof(double) + sizeof(float))));
  auto* sums = reinterpret_cast<float*>(totals + parts * slot);
  std::fill_n(totals, parts * slot, 0.0);

  const int64_t grain = std::max<int64_t>(kFlushRows, kGrainFlops / (out_row * kTaps * kTaps));
  parallel_ranges(shape.N * P, grain, [&](int64_t begin, int64_t end, int part) {
    double* total = totals + static_cast<size_t>(part) * slot;
    float* sum = sums + static_cast<size_t>(part) * slot;
    for (int64_t first = begin; first < end; first += kFlushRows) {
      std::fill_n(sum, size, 0.0f);
      for (int64_t index = first; index < std::min(end, first + kFlushRows); ++index) {
        const Run& row = rows[static_cast<size_t>(index % P)];
        const T* from = x + index / P * shape.H * in_row;
        const T* dy_row = dy + (index / P * P + row.out) * out_row;
        for (const Run& run : runs) {
          for_strips(row, run, from, in_row, dy_row, C, [&]<int R, int S>(const Strip<T, const T>& strip) {
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

template void depthwise_conv2d(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d(Stream, const DepthwiseShape&, const bf16*, const float*, bf16*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const bf16*, const float*, bf16*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, const bf16*, const bf16*, float*);

}  // namespace depthstill::cpu
