#include "engine/io/png_text.h"

#include "engine/io/png_chunks.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr size_t kHeaderEnd = kPngSignature.size() + 12 + 13;  // IHDR holds 13 bytes
constexpr size_t kMostText = 1024;

}  // namespace

void add_png_text(std::vector<uint8_t>& png, std::string_view keyword, std::string_view text) {
  check(png.size() > kHeaderEnd && !keyword.empty() && keyword.size() < 80 && text.size() <= kMostText,
        "png text: expected a PNG, a keyword under 80 bytes and a text of at most ", kMostText, ", got ", png.size(),
        ", ", keyword.size(), " and ", text.size(), " bytes");
  std::vector<uint8_t> data(keyword.begin(), keyword.end());
  data.push_back(0);
  data.insert(data.end(), text.begin(), text.end());
  std::vector<uint8_t> chunk;
  append_png_chunk(chunk, "tEXt", data);
  png.insert(png.begin() + kHeaderEnd, chunk.begin(), chunk.end());
}

std::optional<std::string> find_png_text(std::span<const uint8_t> png, std::string_view keyword) {
  for (size_t at = kPngSignature.size(); png.size() >= at + 12;) {
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
