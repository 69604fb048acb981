// A whole file mapped for reading. Big checkpoints are read in place and only where they are needed.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace depthstill {

class MappedFile {
 public:
  // Throws Error "PATH: expected WHAT, found ..." for a missing or empty file, a folder and a device.
  MappedFile(const std::string& path, const char* what);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace depthstill
