#include "engine/io/image.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <ostream>
#include <string_view>

#include "engine/io/atomic_file.h"
#include "engine/io/image_header.h"
#include "engine/io/jpeg_scan.h"
#include "engine/io/orientation.h"
#include "engine/io/stb.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

static_assert(STBI_MAX_DIMENSIONS == kMaxImageSide);

struct StbFree {
  void operator()(void* pixels) const { stbi_image_free(pixels); }
};
template <class T>
using StbPixels = std::unique_ptr<T, StbFree>;

int length_of(std::span<const uint8_t> file, const std::string& name) {
  check(file.size() <= 0x7fffffff, name, ": expected an image file under 2 GiB, found ", file.size(), " bytes");
  return static_cast<int>(file.size());
}

template <class T>
void check_decoded(const StbPixels<T>& pixels, const ImageHeader& header, ImageSize size, const std::string& name) {
  check(pixels != nullptr, name, ": expected a ", header.kind, ", found damaged pixel data (",
        pixels ? "" : stbi_failure_reason(), ")");
  check(size == header.stored, name, ": expected ", header.stored, " pixels, found ", size);
}

void append32(std::vector<uint8_t>& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(value >> shift));
}

void append_chunk(std::vector<uint8_t>& out, const char* type, std::span<const uint8_t> data) {
  append32(out, static_cast<uint32_t>(data.size()));
  const size_t begin = out.size();
  out.insert(out.end(), type, type + 4);
  out.insert(out.end(), data.begin(), data.end());
  append32(out, static_cast<uint32_t>(crc32_z(crc32_z(0, nullptr, 0), &out[begin], out.size() - begin)));
}

uint8_t paeth(int left, int up, int corner) {
  const int estimate = left + up - corner;
  const int dl = std::abs(estimate - left), du = std::abs(estimate - up), dc = std::abs(estimate - corner);
  return static_cast<uint8_t>(dl <= du && dl <= dc ? left : du <= dc ? up : corner);
}

// out = row - guess(left, up, upper left), the neighbours outside the image being 0.
template <class Guess>
void subtract_guess(const uint8_t* row, const uint8_t* up, size_t bytes, size_t pixel_bytes, uint8_t* out,
                    Guess guess) {
  for (size_t i = 0; i < pixel_bytes; ++i) out[i] = static_cast<uint8_t>(row[i] - guess(0, up[i], 0));
  for (size_t i = pixel_bytes; i < bytes; ++i) {
    out[i] = static_cast<uint8_t>(row[i] - guess(row[i - pixel_bytes], up[i], up[i - pixel_bytes]));
  }
}

// PNG filter `type` of one row; `up` is zeros for the first row.
void filter_row(int type, const uint8_t* row, const uint8_t* up, size_t bytes, size_t pixel_bytes, uint8_t* out) {
  const auto apply = [&](auto guess) { subtract_guess(row, up, bytes, pixel_bytes, out, guess); };
  switch (type) {
    case 1:
      return apply([](int left, int, int) { return left; });
    case 2:
      return apply([](int, int above, int) { return above; });
    case 3:
      return apply([](int left, int above, int) { return (left + above) / 2; });
    default:
      return apply([](int left, int above, int corner) { return int{paeth(left, above, corner)}; });
  }
}

// The usual heuristic: per row, the filter whose output, read as signed bytes, has the smallest sum of magnitudes.
std::vector<uint8_t> filter_rows(std::span<const uint8_t> raw, size_t rows, size_t row_bytes, size_t pixel_bytes) {
  std::vector<uint8_t> filtered(rows * (row_bytes + 1));
  std::vector<uint8_t> zeros(row_bytes), trial(row_bytes);
  for (size_t r = 0; r < rows; ++r) {
    const uint8_t* row = &raw[r * row_bytes];
    const uint8_t* up = r > 0 ? row - row_bytes : zeros.data();
    uint8_t* out = &filtered[r * (row_bytes + 1)];
    int64_t best = -1;
    for (const int type : {1, 2, 3, 4}) {
      filter_row(type, row, up, row_bytes, pixel_bytes, trial.data());
      int64_t cost = 0;
      for (const uint8_t byte : trial) cost += std::abs(static_cast<int>(static_cast<int8_t>(byte)));
      if (best >= 0 && cost >= best) continue;
      best = cost;
      out[0] = static_cast<uint8_t>(type);
      std::copy(trial.begin(), trial.end(), out + 1);
    }
  }
  return filtered;
}

std::vector<uint8_t> encode_png_bytes(std::span<const uint8_t> raw, ImageSize size, uint8_t bits, uint8_t colour,
                                      int level) {
  const size_t channels = colour == 2 ? 3 : 1, pixel_bytes = channels * bits / 8;
  const auto rows = static_cast<size_t>(size.height);
  const size_t row_bytes = static_cast<size_t>(size.width) * pixel_bytes;
  check(size.width >= 1 && size.height >= 1 && size.width <= kMaxImageSide && size.height <= kMaxImageSide &&
            raw.size() == rows * row_bytes,
        "encode_png: expected pixels of a ", size, " image, got ", raw.size(), " bytes");
  const std::vector<uint8_t> filtered = filter_rows(raw, rows, row_bytes, pixel_bytes);
  uLongf packed_bytes = compressBound(static_cast<uLong>(filtered.size()));
  std::vector<uint8_t> packed(packed_bytes);
  const int status =
      compress2(packed.data(), &packed_bytes, filtered.data(), static_cast<uLong>(filtered.size()), level);
  check(status == Z_OK, "encode_png: zlib returned ", status);
  packed.resize(packed_bytes);

  std::vector<uint8_t> header;
  append32(header, static_cast<uint32_t>(size.width));
  append32(header, static_cast<uint32_t>(size.height));
  header.insert(header.end(), {bits, colour, 0, 0, 0});
  std::vector<uint8_t> file = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  file.reserve(packed.size() + 64);
  append_chunk(file, "IHDR", header);
  append_chunk(file, "IDAT", packed);
  append_chunk(file, "IEND", {});
  return file;
}

ImageOptions options_from_environment() {
  ImageOptions options;
  const char* text = std::getenv("DEPTHSTILL_MAX_PIXELS");
  if (text == nullptr) return options;
  const std::string_view digits = text;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), options.max_pixels);
  check(error == std::errc() && end == digits.data() + digits.size() && options.max_pixels >= 1,
        "DEPTHSTILL_MAX_PIXELS: expected a number of pixels, got '", printable(text), "'");
  return options;
}

}  // namespace

ImageOptions& image_options() {
  static ImageOptions options = options_from_environment();
  return options;
}

std::ostream& operator<<(std::ostream& out, const ImageSize& size) { return out << size.width << 'x' << size.height; }

Image8 decode_image(std::span<const uint8_t> file, const std::string& name) {
  const ImageHeader header = check_image_file(file, name);
  if (header.format == ImageHeader::Format::kJpeg) check_jpeg_scans(file, name);
  ImageSize size;
  const StbPixels<stbi_uc> pixels(
      stbi_load_from_memory(file.data(), length_of(file, name), &size.width, &size.height, nullptr, 3));
  check_decoded(pixels, header, size, name);
  const size_t bytes = size_t{3} * static_cast<size_t>(size.width) * static_cast<size_t>(size.height);
  return upright(Image8{size.width, size.height, std::vector<uint8_t>(pixels.get(), pixels.get() + bytes)},
                 header.orientation);
}

Image16 decode_png16(std::span<const uint8_t> file, const std::string& name) {
  const ImageHeader header = check_image_file(file, name);
  check(header.format == ImageHeader::Format::kPng && header.bits == 16 && header.grey, name,
        ": expected a 16-bit grey PNG, found a ", header.kind);
  ImageSize size;
  const StbPixels<stbi_us> pixels(
      stbi_load_16_from_memory(file.data(), length_of(file, name), &size.width, &size.height, nullptr, 1));
  check_decoded(pixels, header, size, name);
  const size_t count = static_cast<size_t>(size.width) * static_cast<size_t>(size.height);
  return upright(Image16{size.width, size.height, std::vector<uint16_t>(pixels.get(), pixels.get() + count)},
                 header.orientation);
}

Image8 read_image(const std::string& path) { return decode_image(read_bytes(path), path); }
Image16 read_png16(const std::string& path) { return decode_png16(read_bytes(path), path); }

std::vector<uint8_t> encode_png(const Image8& image, int level) {
  return encode_png_bytes(image.rgb, image.size(), 8, 2, level);
}

std::vector<uint8_t> encode_png(const Image16& image, int level) {
  std::vector<uint8_t> raw(image.grey.size() * 2);
  for (size_t i = 0; i < image.grey.size(); ++i) {
    raw[2 * i] = static_cast<uint8_t>(image.grey[i] >> 8);
    raw[2 * i + 1] = static_cast<uint8_t>(image.grey[i] & 0xff);
  }
  return encode_png_bytes(raw, image.size(), 16, 0, level);
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
