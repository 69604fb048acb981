#include "engine/io/text_file.h"

#include <algorithm>
#include <span>

#include "engine/io/file_kind.h"
#include "engine/io/open_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

template <class Buffer>
Buffer read_whole(const std::string& path, uint64_t max_bytes) {
  const OpenFile file(path);
  check(file.size() <= max_bytes, path, ": expected at most ", max_bytes, " bytes, found ", file.size());
  Buffer bytes;
  bytes.resize(static_cast<size_t>(file.size()));
  file.read(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return bytes;
}

// The encoding whose two or four bytes a character the text shows, by its byte order mark or by the zeros of its first
// letters; null for text that is read.
const char* wide_encoding(std::string_view text) {
  using namespace std::string_view_literals;
  if (text.starts_with("\xff\xfe\0\0"sv) || text.starts_with("\0\0\xfe\xff"sv)) return "UTF-32";
  if (text.starts_with("\xff\xfe"sv) || text.starts_with("\xfe\xff"sv)) return "UTF-16";
  if (text.size() < 4) return nullptr;
  const auto zeros = [&](size_t first) {
    size_t at = first;
    while (at < std::min<size_t>(text.size(), 8) && text[at] == 0) at += 2;
    return at >= std::min<size_t>(text.size(), 8);
  };
  return zeros(0) != zeros(1) ? "UTF-16" : nullptr;
}

// A line break or another control character, for readers that know Unicode.
bool is_control(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  return first < 0x20 || first == 0x7f || (first == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0) ||
         character == "\xe2\x80\xa8" || character == "\xe2\x80\xa9";
}

}  // namespace

std::vector<uint8_t> read_bytes(const std::string& path, uint64_t max_bytes) {
  return read_whole<std::vector<uint8_t>>(path, max_bytes);
}

std::string read_text(const std::string& path, uint64_t max_bytes) {
  auto text = read_whole<std::string>(path, max_bytes);
  const char* const wide = wide_encoding(text);
  check(wide == nullptr, path, ": expected UTF-8 text, found ", wide);
  const std::string kind = kind_unless_text(std::as_bytes(std::span(text)));
  check(kind.empty(), path, ": expected UTF-8 text, found ", kind);
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  return text;
}

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t newline = text.find('\n', begin);
    size_t end = newline == std::string::npos ? text.size() : newline;
    const size_t next = newline == std::string::npos ? text.size() : newline + 1;
    if (end > begin && text[end - 1] == '\r') --end;
    lines.push_back(text.substr(begin, end - begin));
    begin = next;
  }
  return lines;
}

size_t utf8_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned lead = byte(at);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  uint32_t code = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0u) != 0x80u) return 0;
    code = code << 6 | (byte(at + i) & 0x3fu);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  return overlong || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff ? 0 : length;
}

std::string one_line(std::string_view text) {
  constexpr const char* digits = "0123456789abcdef";
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    const std::string_view character = text.substr(at, std::max<size_t>(length, 1));
    at += character.size();
    if (length > 0 && !is_control(character)) {
      out += character;
      continue;
    }
    for (const char c : character) {
      const auto byte = static_cast<unsigned char>(c);
      out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    }
  }
  return out;
}

std::string printable(std::string_view text) {
  constexpr size_t kLongest = 60;
  size_t end = 0;
  while (end < text.size() && end < kLongest) end += std::max<size_t>(utf8_length(text, end), 1);  // whole characters
  return one_line(text.substr(0, end)) + (end < text.size() ? "..." : "");
}

}  // namespace depthstill
