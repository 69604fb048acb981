// Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace depthstill {

// Until commit(), `path` keeps its old contents; without commit() the temporary file is removed. A link stays and the
// file that it leads to is replaced, which keeps its mode. What is no ordinary file (a device, a pipe) and what this
// process has as its stdout or stderr is never replaced: it is written to, byte by byte as write() says.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void commit();

 private:
  bool open_in_place();
  void open_beside();
  [[noreturn]] void refuse(const char* expected, int reason) const;

  std::string path_, target_, temporary_;  // target_: path_ with its links followed; temporary_: empty in place
  int descriptor_ = -1;
};

void write_file(const std::string& path, std::string_view text);
void write_file(const std::string& path, std::span<const uint8_t> bytes);

// The path that is written if `path` is: links are followed, and the last one may lead to a file that does not exist
// yet. Throws Error for links that lead in a circle.
std::string follow_links(const std::string& path);

// Makes `path` and the folders above it; throws Error if that fails or a file is in the way.
void make_folder(const std::string& path);

}  // namespace depthstill
