// A depthwise convolution on the CPU cuts the axes of its output into runs (kernels/depthwise/depthwise_conv2d.cpp).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/depthwise/depthwise_conv2d.h"

namespace depthstill::cpu {

constexpr int kMaxTaps = 5;

// Output out + i * out_step, 0 <= i < count, reads for 0 <= t < taps input in + i * in_step + t * in_of_tap with weight
// tap + t * tap_step.
struct Run {
  int64_t out, out_step, count;
  int64_t in = 0, in_step, in_of_tap = 0;
  int taps = 0, tap = 0, tap_step = 0;
};

enum class Direction { kForward, kBackward };

struct Axis {
  int64_t out_size, in_size;
  int stride, dilation, pad;
  Direction direction;
};

// Covers an axis with runs. Position o reads o * stride + t * dilation - pad forward, and in the gradient
// (o + pad - t * dilation) / stride where that is exact. Positions are visited `phases` apart. The taps of a run are
// evenly spaced: every one, or in the gradient at stride 2 every other one.
inline std::vector<Run> runs_of(const Axis& axis, int kernel, int phases) {
  const bool forward = axis.direction == Direction::kForward;
  const int mul = forward ? axis.stride : 1, div = forward ? 1 : axis.stride;
  const int64_t period = int64_t{phases} * div, in_step = int64_t{phases} * mul;
  std::vector<Run> runs;
  for (int64_t first = 0; first < std::min(period, axis.out_size); ++first) {
    const int64_t count = (axis.out_size - first + period - 1) / period;
    int64_t in[kMaxTaps], begin[kMaxTaps], end[kMaxTaps];  // tap t is inside the map for begin <= i < end
    std::vector<int64_t> cuts = {0, count};
    for (int t = 0; t < kernel; ++t) {
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
      Run run{.out = first + i * period, .out_step = period, .count = cuts[cut + 1] - i, .in_step = in_step};
      for (int k = 0; k < kernel; ++k) {  // from the smallest input position to the largest
        const int t = forward ? k : kernel - 1 - k;
        if (begin[t] > i || end[t] <= i) continue;
        const int64_t at = in[t] + i * in_step;
        if (run.taps == 0) run.in = at, run.tap = t;
        if (run.taps == 1) run.in_of_tap = at - run.in, run.tap_step = t - run.tap;
        ++run.taps;
      }
      runs.push_back(run);
    }
  }
  return runs;
}

// The runs of an axis position by position. With phases = dilation, neighbours in this order share input rows, which
// are then still in the cache.
inline std::vector<Run> positions_of(const Axis& axis, int kernel) {
  std::vector<Run> positions;
  for (const Run& run : runs_of(axis, kernel, axis.dilation)) {
    for (int64_t i = 0; i < run.count; ++i) {
      Run one = run;
      one.out += i * run.out_step;
      one.in += i * run.in_step;
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
