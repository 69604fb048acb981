// Cubic resizing as OpenCV's INTER_CUBIC: A = -0.75, pixel centres, edges repeated, no smoothing where the image
// shrinks.
#pragma once

#include <vector>

#include "engine/io/image.h"
#include "engine/io/map_file.h"

namespace depthstill {

// RGB (height, width, 3) in 0..255, not rounded; overshoot beyond that range is kept.
std::vector<float> resize_cubic(const Image8& image, ImageSize size);
DepthMap resize_cubic(const DepthMap& depth, ImageSize size);

}  // namespace depthstill
