// Labels that a teacher's network has made, screened in place: which of them teach nothing. A label is a relative map;
// its fault, that of its least and greatest finite value, is the one rule for labels of networks and of files.
//   fault of image n = label_fault(least and greatest finite value of maps[n])
//   maps[n], patches[n] = NaN throughout if it has one; else NaN where a value is not finite
// Bound: memory. Bytes per value: 8 of maps, 4 of patches read; written is only what is not finite, or has a fault.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

enum class LabelFault : int32_t { kNone, kEmpty, kConstant };  // kEmpty: nothing is finite

// least > greatest: there is no finite value.
DS_HOST_DEVICE inline LabelFault label_fault(float least, float greatest) {
  if (least > greatest) return LabelFault::kEmpty;
  // The margin of rounding in fp16 or in a resize.
  const float a = least < 0 ? -least : least, b = greatest < 0 ? -greatest : greatest;
  const float magnitude = a > b ? a : b, tiny = std::numeric_limits<float>::min();
  return greatest - least <= 1e-6f * (magnitude > tiny ? magnitude : tiny) ? LabelFault::kConstant : LabelFault::kNone;
}

// Labels over calls. It lies in the memory of the device, so that the host need not wait.
struct LabelTally {
  int64_t labels = 0;
  int64_t empty = 0;  // those with a fault
};

// maps (N, pixels), patches (N, patch_pixels), patch_pixels may be 0. Assigns faults (N); adds to tally.
namespace cpu {
void screen_labels(Stream stream, int64_t N, int64_t pixels, int64_t patch_pixels, float* maps, float* patches,
                   LabelFault* faults, LabelTally* tally);
}  // namespace cpu
namespace cuda {
void screen_labels(Stream stream, int64_t N, int64_t pixels, int64_t patch_pixels, float* maps, float* patches,
                   LabelFault* faults, LabelTally* tally);
}  // namespace cuda
}  // namespace depthstill
