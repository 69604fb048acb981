#include "engine/io/pfm.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>

#include "engine/io/atomic_file.h"
#include "engine/io/file_kind.h"
#include "engine/io/image.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr size_t kMaxWord = 32;

bool is_space(uint8_t c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// The next word and the single whitespace byte that ends it.
std::string_view next_word(std::span<const uint8_t> file, size_t& at, const std::string& name) {
  while (at < file.size() && is_space(file[at])) ++at;
  const size_t begin = at;
  while (at < file.size() && !is_space(file[at]) && at - begin <= kMaxWord) ++at;
  check(at > begin && at < file.size() && is_space(file[at]), name,
        ": expected a PFM header, found its end or a word of over ", kMaxWord, " bytes at byte ", begin);
  return {reinterpret_cast<const char*>(file.data()) + begin, at++ - begin};
}

template <class T>
T parse(std::string_view word, const char* what, const std::string& name) {
  T value{};
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  check(error == std::errc() && end == word.data() + word.size(), name, ": expected the ", what, " of a PFM, found '",
        printable(word), "'");
  return value;
}

}  // namespace

PfmLayout parse_pfm(std::span<const uint8_t> head, uint64_t file_bytes, const std::string& name) {
  if (head.size() < 3 || head[0] != 'P' || (head[1] != 'f' && head[1] != 'F') || !is_space(head[2])) {
    const std::string kind = file_kind(std::as_bytes(head));
    fail(name, ": expected a PFM file, found ", kind.empty() ? "another signature" : kind);
  }
  check(head[1] == 'f', name, ": expected a PFM of one channel (Pf), found three (PF)");
  size_t at = 2;
  const int64_t width = parse<int64_t>(next_word(head, at, name), "width", name);
  const int64_t height = parse<int64_t>(next_word(head, at, name), "height", name);
  const double scale = parse<double>(next_word(head, at, name), "scale", name);
  check(width >= 1 && height >= 1 && width <= kMaxImageSide && height <= kMaxImageSide, name,
        ": expected a PFM of 1 to ", kMaxImageSide, " pixels a side, found ", width, "x", height);
  check(std::isfinite(scale) && scale != 0, name, ": expected a PFM scale that is not 0, found ", scale);
  const uint64_t expected = static_cast<uint64_t>(width) * static_cast<uint64_t>(height) * 4;
  check(file_bytes - at == expected, name, ": expected ", expected, " bytes of data, found ", file_bytes - at);
  const bool swapped = (scale > 0) == (std::endian::native == std::endian::little);
  return {static_cast<int>(width), static_cast<int>(height), swapped, at};
}

void swap_pfm(const PfmLayout& layout, std::span<float> values) {
  if (!layout.swapped) return;
  for (float& value : values) value = std::bit_cast<float>(__builtin_bswap32(std::bit_cast<uint32_t>(value)));
}

FloatMap decode_pfm(std::span<const uint8_t> file, const std::string& name) {
  const PfmLayout layout = parse_pfm(file, file.size(), name);
  const auto w = static_cast<size_t>(layout.width), h = static_cast<size_t>(layout.height);
  FloatMap map{layout.width, layout.height, std::vector<float>(w * h)};
  for (size_t r = 0; r < h; ++r)
    std::memcpy(&map.values[(h - 1 - r) * w], &file[layout.data_offset + r * w * 4], w * 4);
  swap_pfm(layout, map.values);
  return map;
}

FloatMap read_pfm(const std::string& path) { return decode_pfm(read_bytes(path), path); }

std::vector<uint8_t> encode_pfm(const FloatMap& map, const std::string& name) {
  static_assert(std::endian::native == std::endian::little);
  const auto w = static_cast<size_t>(map.width), h = static_cast<size_t>(map.height);
  check(map.width > 0 && map.height > 0 && map.values.size() == w * h, name, ": expected ", map.width, "x", map.height,
        " values, got ", map.values.size());
  const std::string header = concat_text("Pf\n", map.width, ' ', map.height, "\n-1.0\n");
  std::vector<uint8_t> file(header.size() + w * h * sizeof(float));
  std::copy(header.begin(), header.end(), file.begin());
  for (size_t r = 0; r < h; ++r) {
    std::memcpy(&file[header.size() + (h - 1 - r) * w * sizeof(float)], &map.values[r * w], w * sizeof(float));
  }
  return file;
}

void write_pfm(const std::string& path, int width, int height, std::span<const float> values) {
  write_file(path, encode_pfm({width, height, {values.begin(), values.end()}}, path));
}

}  // namespace depthstill
