// Whether two paths are one file or folder, however they are spelled.
#pragma once

#include <sys/stat.h>

#include <compare>
#include <optional>
#include <string>

namespace depthstill {

struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  auto operator<=>(const FileId&) const = default;
};

// Links are followed; hard links are the same file. nullopt if there is nothing that can be looked at.
inline std::optional<FileId> file_id(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileId{status.st_dev, status.st_ino};
}

}  // namespace depthstill
