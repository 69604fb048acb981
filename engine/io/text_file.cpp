#include "engine/io/text_file.h"

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

}  // namespace

std::vector<uint8_t> read_bytes(const std::string& path, uint64_t max_bytes) {
  return read_whole<std::vector<uint8_t>>(path, max_bytes);
}

std::string read_text(const std::string& path, uint64_t max_bytes) { return read_whole<std::string>(path, max_bytes); }

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

std::string printable(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string out;
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    constexpr const char* digits = "0123456789abcdef";
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    }
  }
  return text.size() > kLongest ? out + "..." : out;
}

}  // namespace depthstill
