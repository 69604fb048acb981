#include "engine/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/error.h"

namespace depthstill {

MappedFile::MappedFile(const std::string& path, const char* what) : path_(path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  check(descriptor >= 0, path, ": expected a readable file, found: ", std::strerror(errno));
  struct stat status {};
  const bool regular = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  size_ = regular ? static_cast<size_t>(status.st_size) : 0;
  void* map = size_ > 0 ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0) : MAP_FAILED;
  const int reason = errno;
  close(descriptor);
  check(regular, path, ": expected ", what, ", found ", S_ISDIR(status.st_mode) ? "a folder" : "a special file");
  check(size_ > 0, path, ": expected ", what, ", found an empty file");
  check(map != MAP_FAILED, path, ": expected a file that can be mapped, found: ", std::strerror(reason));
  data_ = static_cast<const std::byte*>(map);
}

MappedFile::~MappedFile() { munmap(const_cast<std::byte*>(data_), size_); }

}  // namespace depthstill
