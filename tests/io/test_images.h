// Pictures for tests, and their files with EXIF blocks.
#pragma once

#include <zlib.h>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/io/image.h"

namespace depthstill::testing_files {

inline Image8 picture(int width, int height) {
  Image8 image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      image.rgb.push_back(static_cast<uint8_t>(x * 7 + y));
      image.rgb.push_back(static_cast<uint8_t>(120 + 60 * std::sin(0.3 * x + 0.2 * y)));
      image.rgb.push_back(static_cast<uint8_t>(x ^ y));
    }
  }
  return image;
}

inline Image16 ramp(int width, int height) {
  Image16 image{width, height, {}};
  for (int i = 0; i < width * height; ++i) image.grey.push_back(static_cast<uint16_t>(i * 7919 + (i >> 3)));
  return image;
}

// Sets the checksums of all chunks, so that damage reaches the decoder behind them.
inline std::vector<uint8_t> with_checksums(std::vector<uint8_t> file) {
  for (size_t at = 8; at + 12 <= file.size();) {
    size_t length = 0;
    for (size_t i = 0; i < 4; ++i) length = length << 8 | file[at + i];
    if (length > file.size() - at - 12) break;
    const auto sum = static_cast<uint32_t>(crc32(0, &file[at + 4], static_cast<uInt>(length + 4)));
    for (size_t i = 0; i < 4; ++i) file[at + 8 + length + i] = static_cast<uint8_t>(sum >> (24 - 8 * i));
    at += 12 + length;
  }
  return file;
}

// A TIFF block with a tag before the orientation, in either byte order.
inline std::vector<uint8_t> exif_block(int orientation, bool little) {
  const auto value = static_cast<uint8_t>(orientation);
  if (little) {
    return {'I', 'I', 42, 0,    8, 0, 0, 0, 2, 0, 0x0f, 0x01,  2, 0, 1, 0, 0, 0, 'A',
            0,   0,   0,  0x12, 1, 3, 0, 1, 0, 0, 0,    value, 0, 0, 0, 0, 0, 0, 0};
  }
  return {'M', 'M', 0, 42, 0,    0, 0, 8, 0, 2, 0x01, 0x0f, 0,     2, 0, 0, 0, 1, 'A',
          0,   0,   0, 1,  0x12, 0, 3, 0, 0, 0, 1,    0,    value, 0, 0, 0, 0, 0, 0};
}

inline std::vector<uint8_t> png_with_exif(std::vector<uint8_t> file, const std::vector<uint8_t>& tiff) {
  std::vector<uint8_t> chunk = {0, 0, 0, static_cast<uint8_t>(tiff.size()), 'e', 'X', 'I', 'f'};
  chunk.insert(chunk.end(), tiff.begin(), tiff.end());
  chunk.insert(chunk.end(), 4, 0);
  file.insert(file.begin() + 33, chunk.begin(), chunk.end());
  return with_checksums(std::move(file));
}

inline std::vector<uint8_t> jpeg_with_exif(std::vector<uint8_t> file, const std::vector<uint8_t>& tiff) {
  std::vector<uint8_t> segment = {0xff, 0xe1, 0, static_cast<uint8_t>(tiff.size() + 8), 'E', 'x', 'i', 'f', 0, 0};
  segment.insert(segment.end(), tiff.begin(), tiff.end());
  file.insert(file.begin() + 2, segment.begin(), segment.end());
  return file;
}

}  // namespace depthstill::testing_files
