// PNG and JPEG. Reading is stb_image's, behind checks that it does not make: limits before anything is allocated, PNG
// checksums, JPEG tables, and the end of the pixels (stb_image fills the missing rest of a JPEG with grey).
// PNG writing is ours on zlib, because stb_image_write has no 16-bit form and its deflate is weak.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

namespace depthstill {

struct ImageSize {
  int width = 0, height = 0;
  bool operator==(const ImageSize&) const = default;
};
std::ostream& operator<<(std::ostream& out, const ImageSize& size);  // "1216x352", width first

// Pixels [left, left + width) x [top, top + height).
struct Rect {
  int left = 0, top = 0, width = 0, height = 0;
  int right() const { return left + width; }
  int bottom() const { return top + height; }
  ImageSize size() const { return {width, height}; }
  bool operator==(const Rect&) const = default;
};

struct Image8 {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // (height, width, 3)
  ImageSize size() const { return {width, height}; }
};

struct Image16 {
  int width = 0, height = 0;
  std::vector<uint16_t> grey;  // (height, width)
  ImageSize size() const { return {width, height}; }
};

inline constexpr int kMaxImageSide = 16384;

// What holds for all images of the process. The first call reads DEPTHSTILL_MAX_PIXELS from the environment.
struct ImageOptions {
  int64_t max_pixels = int64_t{1} << 27;  // of an image that is read
};
ImageOptions& image_options();

// Any PNG or JPEG as 8-bit RGB: grey is repeated, alpha dropped, 16 bits cut to 8. Pictures stand upright: the
// orientation that a camera wrote into the file (EXIF) is applied, and sizes are those of the upright picture.
Image8 read_image(const std::string& path);
Image8 decode_image(std::span<const uint8_t> file, const std::string& name);

// A PNG that is 16-bit grey, upright; anything else is refused.
Image16 read_png16(const std::string& path);
Image16 decode_png16(std::span<const uint8_t> file, const std::string& name);

// level: zlib's, 1 (fast) to 9 (small).
std::vector<uint8_t> encode_png(const Image8& image, int level = 6);
std::vector<uint8_t> encode_png(const Image16& image, int level = 6);
std::vector<uint8_t> encode_jpeg(const Image8& image, int quality = 90);

// The file is written atomically.
void write_png(const std::string& path, const Image8& image, int level = 6);
void write_png(const std::string& path, const Image16& image, int level = 6);

}  // namespace depthstill
