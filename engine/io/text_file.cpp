#include "engine/io/text_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/error.h"

namespace depthstill {
namespace {

struct OpenFile {
  int descriptor;
  explicit OpenFile(const std::string& path) : descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    check(descriptor >= 0, path, ": expected a readable file, found: ", std::strerror(errno));
  }
  ~OpenFile() { close(descriptor); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
};

template <class Buffer>
Buffer read_whole(const std::string& path, uint64_t max_bytes) {
  const OpenFile file(path);
  struct stat status {};
  check(fstat(file.descriptor, &status) == 0, path, ": expected a readable file, found: ", std::strerror(errno));
  check(S_ISREG(status.st_mode), path, ": expected a readable file, found ",
        S_ISDIR(status.st_mode) ? "a folder" : "a special file");
  const auto size = static_cast<uint64_t>(status.st_size);
  check(size <= max_bytes, path, ": expected at most ", max_bytes, " bytes, found ", size);
  Buffer bytes;
  bytes.resize(static_cast<size_t>(size));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = read(file.descriptor, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, path, ": expected ", size, " bytes, found a read error: ", std::strerror(errno));
    check(n > 0, path, ": expected ", size, " bytes, found ", done);
    done += static_cast<size_t>(n);
  }
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
