#include "kernels/screen_labels.h"

#include <cmath>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();

void clear(float* values, int64_t count, bool all) {
  for (int64_t i = 0; i < count; ++i) {
    if (all || !std::isfinite(values[i])) values[i] = kUnknown;
  }
}

}  // namespace

void screen_labels(Stream, int64_t N, int64_t pixels, int64_t patch_pixels, float* maps, float* patches,
                   LabelFault* faults, LabelTally* tally) {
  parallel_for(N, 1, [&](int64_t n) {
    float* map = maps + n * pixels;
    float least = std::numeric_limits<float>::infinity(), greatest = -least;
    for (int64_t i = 0; i < pixels; ++i) {
      if (!std::isfinite(map[i])) continue;
      least = std::min(least, map[i]);
      greatest = std::max(greatest, map[i]);
    }
    faults[n] = label_fault(least, greatest);
    clear(map, pixels, faults[n] != LabelFault::kNone);
    clear(patches + n * patch_pixels, patch_pixels, faults[n] != LabelFault::kNone);
  });
  tally->labels += N;
  tally->empty += N - std::count(faults, faults + N, LabelFault::kNone);
}

}  // namespace depthstill::cpu
