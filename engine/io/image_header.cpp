#include "engine/io/image_header.h"

#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "engine/io/file_kind.h"
#include "engine/io/jpeg_header.h"
#include "engine/io/orientation.h"
#include "engine/io/png_chunks.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

// Deflate makes at most 1,032 bytes of one.
constexpr int64_t kMaxInflation = 1032;

// Bytes of the rows before compression: a filter type, then pixels. An interlaced picture is seven smaller ones.
int64_t raw_bytes(ImageSize size, int bits_per_pixel, bool interlaced) {
  struct Pass {
    int left, top, step_x, step_y;
  };
  constexpr Pass kPasses[] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                              {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
  constexpr Pass kWhole[] = {{0, 0, 1, 1}};
  int64_t bytes = 0;
  for (const Pass& pass : interlaced ? std::span<const Pass>(kPasses) : std::span<const Pass>(kWhole)) {
    const int64_t width = (size.width - pass.left + pass.step_x - 1) / pass.step_x;
    const int64_t height = (size.height - pass.top + pass.step_y - 1) / pass.step_y;
    if (width > 0 && height > 0) bytes += height * (1 + (width * bits_per_pixel + 7) / 8);
  }
  return bytes;
}

ImageHeader parse_ihdr(const uint8_t* data, const std::string& name) {
  struct Colour {
    const char* kind;
    int channels, least_bits, most_bits;
  };
  constexpr Colour kColours[] = {{"grey", 1, 1, 16},       {}, {"RGB", 3, 8, 16}, {"palette", 1, 1, 8},
                                 {"grey+alpha", 2, 8, 16}, {}, {"RGBA", 4, 8, 16}};
  const int64_t width = big_endian32(data), height = big_endian32(data + 4);
  check_image_size(width, height, name);
  const int bits = data[8], colour = data[9];
  check(colour <= 6 && kColours[colour].channels > 0, name, ": expected a PNG colour type, found ", colour);
  const Colour& row = kColours[colour];
  const bool power = bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16;
  check(power && bits >= row.least_bits && bits <= row.most_bits, name, ": expected a bit depth of a ", row.kind,
        " PNG, found ", bits);
  check(data[10] == 0 && data[11] == 0 && data[12] <= 1, name,
        ": expected PNG compression 0, filter 0 and interlace 0 or 1, found ", int{data[10]}, ", ", int{data[11]},
        " and ", int{data[12]});
  ImageHeader header;
  header.format = ImageHeader::Format::kPng;
  header.stored = {static_cast<int>(width), static_cast<int>(height)};
  header.bits = bits;
  header.grey = colour == 0;
  header.interlaced = data[12] == 1;
  header.raw_bytes = raw_bytes(header.stored, bits * row.channels, header.interlaced);
  header.kind = concat_text(bits, "-bit ", row.kind, " PNG");
  return header;
}

ImageHeader walk_png(std::span<const uint8_t> file, const std::string& name) {
  ImageHeader header;
  bool needs_palette = false, has_palette = false, has_exif = false;
  int64_t data_bytes = 0;
  for (size_t at = kPngSignature.size();;) {
    check(file.size() - at >= 12, name, ": expected a whole PNG, found its end at byte ", file.size(),
          " before the IEND chunk");
    const size_t length = big_endian32(&file[at]);
    check(length <= file.size() - at - 12, name, ": expected a whole PNG, found its end at byte ", file.size(),
          " inside a chunk of ", length, " bytes");
    const uint8_t* type = &file[at + 4];
    const uint8_t* data = type + 4;
    const auto is = [&](const char* wanted) { return std::memcmp(type, wanted, 4) == 0; };
    const auto sum = static_cast<uint32_t>(crc32_z(crc32_z(0, nullptr, 0), type, length + 4));
    check(sum == big_endian32(data + length), name, ": expected a PNG chunk with its checksum, found damage at byte ",
          at);
    if (at == kPngSignature.size()) {
      check(is("IHDR") && length == 13, name, ": expected a PNG header, found another chunk");
      header = parse_ihdr(data, name);
      needs_palette = data[9] == 3;
    }
    if (is("PLTE")) {
      check(length % 3 == 0 && length >= 3 && length <= 768, name,
            ": expected a PNG palette of 1 to 256 colours, found ", length, " bytes");
      check(!has_palette && data_bytes == 0, name,
            ": expected one PNG palette, before the pixels, found another at byte ", at);
      has_palette = true;
    }
    if (is("IDAT")) {
      check(has_palette || !needs_palette, name, ": expected a PNG palette before the pixels, found none");
      data_bytes += static_cast<int64_t>(length);
    }
    if (is("eXIf") && !has_exif) {
      header.orientation = exif_orientation({data, length});
      has_exif = true;
    }
    at += 12 + length;
    if (is("IEND")) break;
  }
  check(data_bytes > 0, name, ": expected a PNG with pixels, found none");
  const int64_t least = (header.raw_bytes + kMaxInflation - 1) / kMaxInflation;
  check(data_bytes >= least, name, ": expected PNG pixel data of ", least, " bytes or more for ", header.stored,
        " pixels, found ", data_bytes, ": they end before the pixels do");
  header.size = upright_size(header.stored, header.orientation);
  return header;
}

}  // namespace

void check_image_size(int64_t width, int64_t height, const std::string& name) {
  check(width >= 1 && height >= 1 && width <= kMaxImageSide && height <= kMaxImageSide, name,
        ": expected an image of 1 to ", kMaxImageSide, " pixels a side, found ", width, "x", height);
  const int64_t most = image_options().max_pixels;
  check(width * height <= most, name, ": expected an image of at most ", most,
        " pixels (--max-pixels and DEPTHSTILL_MAX_PIXELS set another limit), found ", width, "x", height);
}

ImageHeader check_image_file(std::span<const uint8_t> file, const std::string& name) {
  if (file.size() >= 8 && std::equal(kPngSignature.begin(), kPngSignature.end(), file.begin())) {
    return walk_png(file, name);
  }
  if (file.size() >= 3 && file[0] == 0xff && file[1] == 0xd8 && file[2] == 0xff) {
    return walk_jpeg(file, name, [](const JpegFrame&, const JpegTables&, const JpegScan&) {});
  }
  const std::string kind = file_kind(std::as_bytes(file));
  fail(name, ": expected a PNG or JPEG file, found ", kind.empty() ? "neither's signature" : kind);
}

}  // namespace depthstill
