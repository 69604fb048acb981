// Colours for depth and error maps. Turbo (A. Mikhailov, Google, polynomial form, Apache-2.0) and Magma (N. Smith and
// S. van der Walt, CC0, polynomial fit by M. Zucker).
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "engine/io/image.h"
#include "engine/io/map_file.h"

namespace depthstill {

enum class Colormap { kTurbo, kMagma, kGrey };
Colormap parse_colormap(const std::string& text);  // "turbo", "magma", "grey"

std::array<uint8_t, 3> colour_at(Colormap map, double position);  // position 0..1, clamped

// A ColourRange makes depth a position on the colour map. Near is bright (1), far is dark (0).
struct ColourRange {
  double near = 0, far = 80;  // metres
  bool logarithmic = true;    // the scale is linear if false
  double position(double depth) const;
};

// The range from the 2nd to the 98th percentile of the known depths, widened to at least a factor of 1.1.
ColourRange colour_range(const DepthMap& depth);

// Pixels without depth (0) become mid-grey.
Image8 colour_depth(const DepthMap& depth, Colormap map, const ColourRange& range);

// Nearest-neighbour reduction by the smallest whole factor that brings the width to `max_width` or less.
DepthMap shrink(const DepthMap& depth, int max_width);
Image8 shrink(const Image8& image, int max_width);

}  // namespace depthstill
