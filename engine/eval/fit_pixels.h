// The pixels of an image that an alignment sees: all valid ones, or a part of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/eval/protocol.h"
#include "engine/io/image.h"

namespace depthstill {

// The pixels that an alignment sees by their column and value, part of a frame by part; see fit_mask().
class FittedPixels {
 public:
  FittedPixels(const Protocol& protocol, ImageSize frame, bool inverted);
  // Sets the mask of pixels from `first` on, in row-major order, to 0 where they are not seen.
  void leave(size_t first, std::span<const float> prediction, std::span<uint8_t> mask) const;

 private:
  std::vector<uint8_t> columns_;  // empty: all
  bool positive_;
};

// 1 for the pixels of `valid` that the protocol's alignment fits. `prediction`: as it was given, before any inversion;
// `inverted`: whether the alignment sees its inverse, which only a positive prediction has.
std::vector<uint8_t> fit_mask(const Protocol& protocol, ImageSize frame, std::span<const float> prediction,
                              bool inverted, std::span<const uint8_t> valid);

// The columns that an affine fit with a `fit_side` sees, in order. Marigold hands torch's nearest interpolation the map
// as (N, C, L), so that it thins out the columns of a map whose longer side is greater, and keeps every row.
std::vector<int> fitted_columns(ImageSize frame, int fit_side);

// 1 for the pixel that is nearest to the centre of its cell of a 64 x 64 grid among those of the cell with valid != 0;
// ties go to the first in row-major order (utils3d's masked_nearest_resize, which MoGe fits on).
std::vector<uint8_t> grid_mask(ImageSize frame, std::span<const uint8_t> valid);

}  // namespace depthstill
