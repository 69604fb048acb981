// How a stored picture has to be turned to stand upright, as EXIF says in JPEG (segment APP1) and PNG (chunk eXIf).
#pragma once

#include <cstdint>
#include <span>

#include "engine/io/image.h"

namespace depthstill {

// EXIF's numbers. 1 stands upright; 2 is mirrored left to right, 3 upside down, 4 mirrored top to bottom; 5 to 8 lie on
// their side: rows of the stored picture are columns of the upright one (6: turn it clockwise, 8: the other way).
using Orientation = int;

// The tag of the first directory of a TIFF block. 1 where there is none, or a block that makes no sense: pictures with
// such a block are shown as stored by other programs, too.
Orientation exif_orientation(std::span<const uint8_t> tiff);

ImageSize upright_size(ImageSize stored, Orientation orientation);

// Pixels as stored to pixels of the upright picture.
Image8 upright(Image8 stored, Orientation orientation);
Image16 upright(Image16 stored, Orientation orientation);

}  // namespace depthstill
