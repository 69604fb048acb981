// Walks the entropy-coded bytes of a JPEG file's scans, block by block, without computing pixels.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/io/image_header.h"

namespace depthstill {

// Checks what walk_jpeg (engine/io/jpeg_header.h) does, and that every scan has all of its blocks: throws Error "NAME:
// expected ..., found its end at row R of H" if its bytes end before, and also if they hold a code that its table does
// not have, or restart markers in another order. stb_image fills such gaps with something. It takes an eighth of a byte
// per pixel at most.
ImageHeader check_jpeg_scans(std::span<const uint8_t> file, const std::string& name);

}  // namespace depthstill
