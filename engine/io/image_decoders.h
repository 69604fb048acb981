// The decoders behind image.h, one namespace each; which ones exist is decided when this is built. They take files that
// check_image_file has passed, and give pixels as stored, not yet upright. They throw Error if pixels are damaged or
// missing.
#pragma once

#include <csetjmp>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/io/image_header.h"

namespace depthstill {

// Where a C library's error function jumps to. run() gives false if `work` was left that way: until then `work` holds
// nothing that has a destructor.
struct ErrorJump {
  std::jmp_buf place;
  char message[256] = "";

  template <class F>
  bool run(const F& work) {
    if (setjmp(place) != 0) return false;
    work();
    return true;
  }
};

namespace stb {
std::string version();
Image8 decode_rgb(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name);
Image16 decode_grey16(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name);
// `raw`: rows of RGB or grey pixels, 16 bits big-endian.
std::vector<uint8_t> encode(std::span<const uint8_t> raw, ImageSize size, int bits, bool grey, int level);
}  // namespace stb

// png and jpeg name the libraries where there are any.
#if DEPTHSTILL_LIBPNG
namespace libpng {
std::string version();
Image8 decode_rgb(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name);
Image16 decode_grey16(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name);
std::vector<uint8_t> encode(std::span<const uint8_t> raw, ImageSize size, int bits, bool grey, int level);
}  // namespace libpng
namespace png = libpng;
#else
namespace png = stb;
#endif

#if DEPTHSTILL_LIBJPEG
namespace libjpeg {
std::string version();
Image8 decode_rgb(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name);
}  // namespace libjpeg
namespace jpeg = libjpeg;
#else
namespace jpeg = stb;
#endif

}  // namespace depthstill
