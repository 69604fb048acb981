// The compressed rows of a PNG file, without looking at pixels.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/io/image_header.h"

namespace depthstill {

// Inflates all rows in 64 KiB. Throws Error if there are fewer of them than the header says, or if they are damaged.
// `file`: one that check_image_file has passed, with this header.
void check_png_data(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name);

}  // namespace depthstill
