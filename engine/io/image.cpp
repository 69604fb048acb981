#include "engine/io/image.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ostream>
#include <string_view>

#include "engine/io/atomic_file.h"
#include "engine/io/image_decoders.h"
#include "engine/io/image_header.h"
#include "engine/io/orientation.h"
#include "engine/io/stb.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

ImageOptions options_from_environment() {
  ImageOptions options;
  if (const char* decoder = std::getenv("DEPTHSTILL_DECODER")) {
    options.libraries = std::strcmp(decoder, "libraries") == 0;
    check(options.libraries || std::strcmp(decoder, "stb") == 0, "DEPTHSTILL_DECODER: expected libraries or stb, got '",
          printable(decoder), "'");
  }
  const char* text = std::getenv("DEPTHSTILL_MAX_PIXELS");
  if (text == nullptr) return options;
  const std::string_view digits = text;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), options.max_pixels);
  check(error == std::errc() && end == digits.data() + digits.size() && options.max_pixels >= 1,
        "DEPTHSTILL_MAX_PIXELS: expected a number of pixels, got '", printable(text), "'");
  return options;
}

std::vector<uint8_t> encode_rows(std::span<const uint8_t> raw, ImageSize size, int bits, bool grey, int level) {
  const size_t bytes =
      static_cast<size_t>(size.width) * static_cast<size_t>(grey ? 1 : 3) * static_cast<size_t>(bits / 8);
  check(size.width >= 1 && size.height >= 1 && size.width <= kMaxImageSide && size.height <= kMaxImageSide &&
            raw.size() == bytes * static_cast<size_t>(size.height),
        "encode_png: expected pixels of a ", size, " image, got ", raw.size(), " bytes");
  return (image_options().libraries ? png::encode : stb::encode)(raw, size, bits, grey, level);
}

}  // namespace

ImageOptions& image_options() {
  static ImageOptions options = options_from_environment();
  return options;
}

ImageDecoders image_decoders() {
  if (!image_options().libraries) return {stb::version(), stb::version()};
  return {png::version(), jpeg::version()};
}

std::ostream& operator<<(std::ostream& out, const ImageSize& size) { return out << size.width << 'x' << size.height; }

Image8 decode_image(std::span<const uint8_t> file, const std::string& name) {
  const ImageHeader header = check_image_file(file, name);
  const auto library = header.format == ImageHeader::Format::kPng ? png::decode_rgb : jpeg::decode_rgb;
  return upright((image_options().libraries ? library : stb::decode_rgb)(file, header, name), header.orientation);
}

Image16 decode_png16(std::span<const uint8_t> file, const std::string& name) {
  const ImageHeader header = check_image_file(file, name);
  check(header.format == ImageHeader::Format::kPng && header.bits == 16 && header.grey, name,
        ": expected a 16-bit grey PNG, found a ", header.kind);
  const auto decode = image_options().libraries ? png::decode_grey16 : stb::decode_grey16;
  return upright(decode(file, header, name), header.orientation);
}

Image8 read_image(const std::string& path) { return decode_image(read_bytes(path), path); }
Image16 read_png16(const std::string& path) { return decode_png16(read_bytes(path), path); }

std::vector<uint8_t> encode_png(const Image8& image, int level) {
  return encode_rows(image.rgb, image.size(), 8, false, level);
}

std::vector<uint8_t> encode_png(const Image16& image, int level) {
  std::vector<uint8_t> raw(image.grey.size() * 2);
  for (size_t i = 0; i < image.grey.size(); ++i) {
    raw[2 * i] = static_cast<uint8_t>(image.grey[i] >> 8);
    raw[2 * i + 1] = static_cast<uint8_t>(image.grey[i] & 0xff);
  }
  return encode_rows(raw, image.size(), 16, true, level);
}

std::vector<uint8_t> encode_jpeg(const Image8& image, int quality) {
  const size_t bytes = size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  check(image.width >= 1 && image.height >= 1 && image.rgb.size() == bytes, "encode_jpeg: expected pixels of a ",
        image.size(), " image, got ", image.rgb.size(), " bytes");
  std::vector<uint8_t> file;
  const auto append = [](void* context, void* data, int size) {
    auto& out = *static_cast<std::vector<uint8_t>*>(context);
    const auto* begin = static_cast<const uint8_t*>(data);
    out.insert(out.end(), begin, begin + size);
  };
  const int ok = stbi_write_jpg_to_func(append, &file, image.width, image.height, 3, image.rgb.data(), quality);
  check(ok != 0, "encode_jpeg: stb_image_write refused a ", image.size(), " image");
  return file;
}

void write_png(const std::string& path, const Image8& image, int level) { write_file(path, encode_png(image, level)); }
void write_png(const std::string& path, const Image16& image, int level) { write_file(path, encode_png(image, level)); }

}  // namespace depthstill
