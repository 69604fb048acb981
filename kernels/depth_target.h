// The targets of depth losses, and the one rule of which of their pixels count. A depth counts if it is
//   finite, > 0, and within the range of the model: min <= depth <= max.
// Training learns from such pixels only, `check-data` counts them, and the evaluation compares with them; published
// protocols leave out the ends of the range as well (exclusive_range). 0 stands for "no depth known".
//   depth_target   y = t where t counts, else 0; with kClamp (published code without masks, where every pixel counts)
//                  y = min(max(t, 0), max), NaN as 0
//                  t: the last `rows` rows of the target
// The tally is of the pixels that count in rows >= first_row of y, whatever becomes of the others.
// Bound: memory. Bytes per pixel: 8.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

// Metres. The default is every depth.
struct DepthRange {
  float min = 0.0f, max = std::numeric_limits<float>::max();
};

DS_HOST_DEVICE inline bool valid_depth(float depth, DepthRange range = {}) {
  return depth > 0.0f && depth >= range.min && depth <= range.max;
}

// The depths between min and max without these two. Limits are floats, as published programs compare them.
inline DepthRange exclusive_range(float min, float max) {
  const float infinity = std::numeric_limits<float>::infinity();
  return {std::nextafter(min, infinity), std::nextafter(max, -infinity)};
}

enum class TargetMode : uint8_t { kMask, kClamp };

struct DepthTargetShape {
  int64_t N = 0, H = 0, W = 0;
  int64_t rows = 0;       // rows of y: the last ones of the target
  int64_t first_row = 0;  // rows of y above do not enter the tally
};

// What targets had to learn from, over calls. It lies in the memory of the device, so that the host need not wait.
struct TargetTally {
  int64_t pixels = 0;  // pixels that counted
  int64_t empty = 0;   // calls without any
};

// One pixel of y.
DS_HOST_DEVICE inline float depth_target_of(float target, DepthRange range, TargetMode mode) {
  if (mode == TargetMode::kMask) return valid_depth(target, range) ? target : 0.0f;
  return target > range.max ? range.max : target > 0.0f ? target : 0.0f;
}

DS_HOST_DEVICE inline void add_to_tally(double pixels, TargetTally* tally) {
  tally->pixels += static_cast<int64_t>(pixels);
  if (pixels == 0) ++tally->empty;
}

// target (N, H, W); assigns y (N, rows, W); adds to tally unless it is null.
namespace cpu {
void depth_target(Stream stream, const DepthTargetShape& shape, DepthRange range, TargetMode mode, const float* target,
                  float* y, TargetTally* tally);
}  // namespace cpu
namespace cuda {
void depth_target(Stream stream, const DepthTargetShape& shape, DepthRange range, TargetMode mode, const float* target,
                  float* y, TargetTally* tally);
}  // namespace cuda
}  // namespace depthstill
