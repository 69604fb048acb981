// How a depthwise convolution on the CPU cuts the axes of its output (kernels/depthwise_conv2d.cpp).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/depthwise_conv2d.h"

namespace depthstill::cpu {

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

inline Axis vertical(const DepthwiseShape& s, Direction direction) {
  return direction == Direction::kForward ? Axis{s.P(), s.H, s.stride, s.dilation, s.pad_top, direction}
                                          : Axis{s.H, s.P(), s.stride, s.dilation, s.pad_top, direction};
}

inline Axis horizontal(const DepthwiseShape& s, Direction direction) {
  return direction == Direction::kForward ? Axis{s.Q(), s.W, s.stride, s.dilation, s.pad_left, direction}
                                          : Axis{s.W, s.Q(), s.stride, s.dilation, s.pad_left, direction};
}

}  // namespace depthstill::cpu
