#include "engine/io/image_header.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/io/orientation.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr std::array<uint8_t, 8> kPngSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

uint32_t big_endian32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}
int big_endian16(const uint8_t* p) { return p[0] << 8 | p[1]; }

void check_size(int64_t width, int64_t height, const std::string& name) {
  check(width >= 1 && height >= 1 && width <= kMaxImageSide && height <= kMaxImageSide &&
            width * height <= kMaxImagePixels,
        name, ": expected an image of 1 to ", kMaxImageSide, " pixels a side, found ", width, "x", height);
}

ImageHeader parse_ihdr(const uint8_t* data, const std::string& name) {
  const int64_t width = big_endian32(data), height = big_endian32(data + 4);
  check_size(width, height, name);
  constexpr const char* kinds[] = {"grey", "", "RGB", "palette", "grey+alpha", "", "RGBA"};
  const int bits = data[8], colour = data[9];
  check(colour <= 6 && kinds[colour][0] != '\0', name, ": expected a PNG colour type, found ", colour);
  check(bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16, name, ": expected a PNG bit depth, found ",
        bits);
  ImageHeader header;
  header.format = ImageHeader::Format::kPng;
  header.stored = {static_cast<int>(width), static_cast<int>(height)};
  header.bits = bits;
  header.grey = colour == 0;
  header.kind = concat_text(bits, "-bit ", kinds[colour], " PNG");
  return header;
}

ImageHeader walk_png(std::span<const uint8_t> file, const std::string& name) {
  ImageHeader header;
  bool has_data = false, has_exif = false;
  for (size_t at = kPngSignature.size();;) {
    check(file.size() - at >= 12, name, ": expected a whole PNG, found its end at byte ", file.size(),
          " before the IEND chunk");
    const size_t length = big_endian32(&file[at]);
    check(length <= file.size() - at - 12, name, ": expected a whole PNG, found its end at byte ", file.size(),
          " inside a chunk of ", length, " bytes");
    const uint8_t* type = &file[at + 4];
    const uint8_t* data = type + 4;
    const auto sum = static_cast<uint32_t>(crc32(crc32(0, nullptr, 0), type, static_cast<uInt>(length + 4)));
    check(sum == big_endian32(data + length), name, ": expected a PNG chunk with its checksum, found damage at byte ",
          at);
    if (at == kPngSignature.size()) {
      check(std::memcmp(type, "IHDR", 4) == 0 && length == 13, name, ": expected a PNG header, found another chunk");
      header = parse_ihdr(data, name);
    }
    has_data |= std::memcmp(type, "IDAT", 4) == 0;
    if (std::memcmp(type, "eXIf", 4) == 0 && !has_exif) {
      header.orientation = exif_orientation({data, length});
      has_exif = true;
    }
    at += 12 + length;
    if (std::memcmp(type, "IEND", 4) == 0) break;
  }
  check(has_data, name, ": expected a PNG with pixels, found none");
  header.size = upright_size(header.stored, header.orientation);
  return header;
}

bool is_exif(std::span<const uint8_t> app1) { return app1.size() >= 6 && std::memcmp(app1.data(), "Exif", 5) == 0; }

// Skips the entropy-coded bytes after a start-of-scan segment, up to the next marker that is not a restart marker.
size_t skip_scan(std::span<const uint8_t> file, size_t at) {
  while (at + 1 < file.size()) {
    const uint8_t next = file[at + 1];
    if (file[at] == 0xff && next != 0x00 && next != 0xff && (next < 0xd0 || next > 0xd7)) return at;
    ++at;
  }
  return file.size();
}

// A table has at most 256 codes; stb_image writes past its own tables when the counts say more.
void check_huffman_tables(std::span<const uint8_t> tables, const std::string& name) {
  for (size_t at = 0; at < tables.size();) {
    check(tables.size() - at >= 17, name, ": expected a whole JPEG Huffman table, found ", tables.size() - at,
          " bytes");
    size_t codes = 0;
    for (size_t i = 1; i <= 16; ++i) codes += tables[at + i];
    check(codes <= 256 && tables.size() - at >= 17 + codes, name,
          ": expected a JPEG Huffman table of at most 256 codes, found ", codes);
    at += 17 + codes;
  }
}

ImageHeader walk_jpeg(std::span<const uint8_t> file, const std::string& name) {
  ImageHeader header;
  header.format = ImageHeader::Format::kJpeg;
  header.kind = "JPEG";
  bool has_scan = false, has_exif = false;
  const auto need = [&](size_t at, size_t bytes) {
    check(at <= file.size() && file.size() - at >= bytes, name, ": expected a whole JPEG, found its end at byte ",
          file.size(), " before the end marker");
  };
  for (size_t at = 2;;) {
    need(at, 2);
    check(file[at] == 0xff, name, ": expected a JPEG marker at byte ", at, ", found ", int{file[at]});
    const uint8_t marker = file[at + 1];
    if (marker == 0xff) {  // padding
      ++at;
      continue;
    }
    if (marker == 0xd9) break;
    need(at, 4);
    const auto length = static_cast<size_t>(big_endian16(&file[at + 2]));
    check(length >= 2, name, ": expected a JPEG segment at byte ", at, ", found length ", length);
    need(at, 2 + length);
    const bool frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (frame) {
      check(header.stored.width == 0, name, ": expected one JPEG frame header, found a second at byte ", at);
      check(length >= 8, name, ": expected a JPEG frame header, found ", length, " bytes");
      check_size(big_endian16(&file[at + 7]), big_endian16(&file[at + 5]), name);
      header.stored = {big_endian16(&file[at + 7]), big_endian16(&file[at + 5])};
      header.grey = file[at + 9] == 1;
    }
    const std::span<const uint8_t> contents = file.subspan(at + 4, length - 2);
    if (marker == 0xe1 && !has_exif && is_exif(contents)) {
      header.orientation = exif_orientation(contents.subspan(6));
      has_exif = true;
    }
    if (marker == 0xc4) check_huffman_tables(contents, name);
    at += 2 + length;
    if (marker == 0xda) {
      check(header.stored.width > 0, name, ": expected a JPEG frame header before the pixels, found none");
      has_scan = true;
      at = skip_scan(file, at);
    }
  }
  check(has_scan, name, ": expected a JPEG with pixels, found none");
  header.size = upright_size(header.stored, header.orientation);
  return header;
}

}  // namespace

ImageHeader check_image_file(std::span<const uint8_t> file, const std::string& name) {
  if (file.size() >= 8 && std::equal(kPngSignature.begin(), kPngSignature.end(), file.begin())) {
    return walk_png(file, name);
  }
  if (file.size() >= 3 && file[0] == 0xff && file[1] == 0xd8 && file[2] == 0xff) return walk_jpeg(file, name);
  if (file.empty()) fail(name, ": expected a PNG or JPEG file, found an empty file");
  fail(name, ": expected a PNG or JPEG file, found neither's signature");
}

}  // namespace depthstill
