// A regular file that is read in parts.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace depthstill {

class OpenFile {
 public:
  // Throws Error "PATH: expected a readable file, found ..." for a missing file, a folder and a device.
  explicit OpenFile(const std::string& path);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // size when it was opened
  // Fills all of `to`, from byte `at` on. Throws Error if the file has become shorter. Safe from several threads.
  void read(uint64_t at, std::span<uint8_t> to) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace depthstill
