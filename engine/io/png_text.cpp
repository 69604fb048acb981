#include "engine/io/png_text.h"

#include <zlib.h>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr size_t kSignatureBytes = 8, kHeaderEnd = kSignatureBytes + 12 + 13;  // IHDR holds 13 bytes
constexpr size_t kMostText = 1024;

uint32_t big_endian32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

void append32(std::vector<uint8_t>& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(value >> shift));
}

}  // namespace

void add_png_text(std::vector<uint8_t>& png, std::string_view keyword, std::string_view text) {
  check(png.size() > kHeaderEnd && !keyword.empty() && keyword.size() < 80 && text.size() <= kMostText,
        "png text: expected a PNG, a keyword under 80 bytes and a text of at most ", kMostText, ", got ", png.size(),
        ", ", keyword.size(), " and ", text.size(), " bytes");
  std::vector<uint8_t> chunk;
  append32(chunk, static_cast<uint32_t>(keyword.size() + 1 + text.size()));
  for (const std::string_view part : {std::string_view("tEXt"), keyword, std::string_view("\0", 1), text}) {
    chunk.insert(chunk.end(), part.begin(), part.end());
  }
  append32(chunk, static_cast<uint32_t>(crc32(crc32(0, nullptr, 0), &chunk[4], static_cast<uInt>(chunk.size() - 4))));
  png.insert(png.begin() + kHeaderEnd, chunk.begin(), chunk.end());
}

std::optional<std::string> find_png_text(std::span<const uint8_t> png, std::string_view keyword) {
  for (size_t at = kSignatureBytes; png.size() >= at + 12;) {
    const size_t length = big_endian32(&png[at]);
    const std::string_view type(reinterpret_cast<const char*>(&png[at + 4]), 4);
    if (type == "IDAT" || length > png.size() - at - 12) return std::nullopt;
    const std::string_view data(reinterpret_cast<const char*>(&png[at + 8]), length);
    if (type == "tEXt" && length <= keyword.size() + 1 + kMostText && data.starts_with(keyword) &&
        length > keyword.size() && data[keyword.size()] == '\0') {
      return std::string(data.substr(keyword.size() + 1));
    }
    at += 12 + length;
  }
  return std::nullopt;
}

}  // namespace depthstill
