// Walks a PNG or JPEG file from its first to its last byte without decoding pixels. This check stands before every
// decoder.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/io/image.h"

namespace depthstill {

struct ImageHeader {
  enum class Format : uint8_t { kPng, kJpeg } format = Format::kPng;
  ImageSize size;       // of the upright picture, which is what is decoded
  ImageSize stored;     // of the picture in the file
  int orientation = 1;  // EXIF's (engine/io/orientation.h)
  int bits = 8;         // bits per channel
  bool grey = false;    // one channel, no palette
  std::string kind;     // "16-bit grey PNG", for messages
  // Of a PNG: whether its rows come in seven passes, and the bytes of all rows before compression.
  bool interlaced = false;
  int64_t raw_bytes = 0;
};

// Throws Error unless `file` is a PNG or JPEG within the limits of image.h, complete to its end marker, with valid
// checksums (PNG) and tables (JPEG, see jpeg_header.h), and with as many bytes of pixel data as its pixels need at the
// least. Pixel data itself may still be damaged. Nothing is allocated that grows with the number of pixels.
ImageHeader check_image_file(std::span<const uint8_t> file, const std::string& name);

// Throws Error unless each side is 1 to kMaxImageSide and the product at most image_options().max_pixels.
void check_image_size(int64_t width, int64_t height, const std::string& name);

}  // namespace depthstill
