#include "engine/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  return concat_text(path, ".tmp", getpid(), ".", counter++);
}

// The rename itself must reach the disk too. Some file systems cannot flush a folder: not worth failing for.
void flush_folder(const std::string& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  fsync(descriptor);
  close(descriptor);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  // A folder of that name would only be noticed at the rename, after all the work.
  std::error_code ignored;
  check(!std::filesystem::is_directory(path_, ignored), path_, ": expected a file to write, found a folder");
  descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor_ < 0) refuse("expected a writable folder", errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::refuse(const char* expected, int reason) const {
  if (reason == ENOSPC || reason == EDQUOT) {
    fail(path_, ": expected space to write, found a full disk: ", std::strerror(reason));
  }
  fail(path_, ": ", expected, ", found: ", std::strerror(reason));
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(descriptor_, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) refuse("expected space to write", n < 0 ? errno : EIO);
    at += n;
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  // EINVAL and EROFS: the file system has no such operation.
  if (fsync(descriptor_) != 0 && errno != EINVAL && errno != EROFS) refuse("expected space to write", errno);
  const int closed = close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) refuse("expected space to write", errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) refuse("expected a replaceable file", errno);
  temporary_.clear();
  flush_folder(folder_of(path_));
}

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

void write_file(const std::string& path, std::span<const uint8_t> bytes) {
  AtomicFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  check(!error, path, ": expected a folder that can be made, found: ", error.message());
  check(std::filesystem::is_directory(path, error), path, ": expected a folder, found a file");
}

}  // namespace depthstill
