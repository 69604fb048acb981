// Cutting, resizing, padding and mirroring of decoded images and depth maps.
#pragma once

#include "engine/io/image.h"
#include "engine/io/map_file.h"

namespace depthstill {

Image8 crop(const Image8& image, const Rect& rect);
DepthMap crop(const DepthMap& depth, const Rect& rect);

// Resizes each axis by itself: the mean over a pixel's area where it shrinks, bilinear (pixel centres, edges repeated)
// where it grows. Rounds to 8 bits once, at the end.
Image8 resize(const Image8& image, ImageSize size);

// Takes the nearest pixel: no depth is invented between a near and a far surface, and holes stay holes.
DepthMap resize(const DepthMap& depth, ImageSize size);

// Resizes bilinearly, on pixel centres with edges repeated or with the corners' centres aligned. Maps must have no
// holes.
DepthMap resize_bilinear(const DepthMap& depth, ImageSize size, bool align_corners = false);

// Repeats the last row and column until both sides are multiples of `multiple`.
Image8 pad_to_multiple(const Image8& image, int multiple);

// Exchanges left and right.
Image8 mirror(const Image8& image);

}  // namespace depthstill
