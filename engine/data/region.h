// What an iteration of Distill Any Depth draws (Sec. 3.2 and 4.1): from each image the square region that student and
// teacher both see, in it the patches that the teacher sees at their own size, and the teacher. The paper states
// neither the number of patches nor how they overlap: here they lie on an even grid.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/device.h"
#include "engine/dtype.h"
#include "engine/io/image.h"
#include "kernels/preprocess_region.h"

namespace depthstill {

struct RegionSpec {
  bool centred = false;           // the middle square of the short side, never mirrored: "no random cropping" (Table 2)
  int patch = 560;                // pixels of a side of a patch, which is the size of the teacher's input
  int least = 644;                // least side of a region, at least `patch`
  int patches = 4;                // of a region
  double flip_probability = 0.0;  // left-right
};

struct Region {
  struct Patch {
    int row, column;  // first pixel, of the mirrored region resized to `scaled`
  };

  int top, left, side;  // pixels of the image
  bool mirrored;        // after it is cut
  int scaled;           // side in which patches are cut: a region smaller than `least` is enlarged to it
  std::vector<Patch> patches;
};

// The region of sample `index` in `epoch`: a function of the arguments alone. The side is uniform between the least one
// (or the image's short side if that is smaller) and the short side; the region's place is uniform. Patches are a
// random choice from a grid of n x n evenly spread ones, n = max(2, ceil(scaled / patch)), without repetition as long
// as there are any left. Throws Error for an empty image, or if a patch is larger than the least side.
Region draw_region(const RegionSpec& spec, ImageSize image, uint64_t seed, int64_t epoch, int64_t index);

// What cuts the region from its image and resizes it to scaled x scaled pixels, and what cuts a patch of it, which is
// seen at its own size (preprocess_region).
RegionParams region_params(const Region& region, int scaled);
RegionParams patch_params(const Region& region, const Region::Patch& patch);
// Writes what they cut from `image` as a network's input, (size, size, 3) of `dtype`. Both lie on `device`.
void write_window(Device device, Stream stream, const Frame& frame, const uint8_t* image, const RegionParams& params,
                  int size, DType dtype, void* to);

// The teacher that serves iteration `step` of `epoch`, as an index into `weights`: the shares in which teachers are
// drawn, not negative, which need not add up to 1. Throws Error if their sum is not a positive number.
int64_t draw_teacher(std::span<const double> weights, uint64_t seed, int64_t epoch, int64_t step);

}  // namespace depthstill
