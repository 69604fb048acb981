// PNG and JPEG, by libpng and libjpeg-turbo where the build has them, else by stb_image. One check stands before both
// (engine/io/image_header.h): limits before anything is allocated, PNG checksums, JPEG tables. Pixels that are missing
// or damaged are an error with each.
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

// What holds for all images of the process. The first call reads DEPTHSTILL_MAX_PIXELS and DEPTHSTILL_DECODER
// (libraries or stb) from the environment.
struct ImageOptions {
  int64_t max_pixels = int64_t{1} << 27;  // of an image that is read
  bool libraries = true;                  // libpng and libjpeg where the build has them; false: stb_image
};
ImageOptions& image_options();

// Names and versions of what is in use: "libpng 1.6.39", "libjpeg-turbo 2.1.5", "stb_image". PNG pixels are the same
// with each. How far those of JPEG differ is stated in docs/images.md.
struct ImageDecoders {
  std::string png, jpeg;
};
ImageDecoders image_decoders();

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
