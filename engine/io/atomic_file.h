// Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace depthstill {

// Until commit(), `path` keeps its old contents; without commit() the temporary file is removed.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void commit();

 private:
  [[noreturn]] void refuse(const char* expected, int reason) const;

  std::string path_, temporary_;
  int descriptor_ = -1;
};

void write_file(const std::string& path, std::string_view text);
void write_file(const std::string& path, std::span<const uint8_t> bytes);

// Makes `path` and the folders above it; throws Error if that fails or a file is in the way.
void make_folder(const std::string& path);

}  // namespace depthstill
