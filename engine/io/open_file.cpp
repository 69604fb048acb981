#include "engine/io/open_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/error.h"

namespace depthstill {

OpenFile::OpenFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  check(descriptor_ >= 0, path, ": expected a readable file, found: ", std::strerror(errno));
  struct stat status {};
  const bool known = fstat(descriptor_, &status) == 0;
  const int reason = errno;
  if (known && S_ISREG(status.st_mode)) {
    size_ = static_cast<uint64_t>(status.st_size);
    return;
  }
  close(descriptor_);  // there will be no destructor
  check(known, path, ": expected a readable file, found: ", std::strerror(reason));
  fail(path, ": expected a readable file, found ", S_ISDIR(status.st_mode) ? "a folder" : "a special file");
}

OpenFile::~OpenFile() { close(descriptor_); }

void OpenFile::read(uint64_t at, std::span<uint8_t> to) const {
  for (size_t done = 0; done < to.size();) {
    const ssize_t n = pread(descriptor_, to.data() + done, to.size() - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, path_, ": expected ", size_, " bytes, found a read error: ", std::strerror(errno));
    check(n > 0, path_, ": expected ", size_, " bytes, found ", at + done);
    done += static_cast<size_t>(n);
  }
}

}  // namespace depthstill
