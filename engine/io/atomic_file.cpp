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

bool same_file(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  if (!open_in_place()) open_beside();
}

// The kernel follows the links here: those of /proc/self/fd have no readable target.
bool AtomicFile::open_in_place() {
  struct stat status {};
  if (stat(path_.c_str(), &status) != 0) return false;
  // A folder of that name would only be noticed at the rename, after all the work.
  check(!S_ISDIR(status.st_mode), path_, ": expected a file to write, found a folder");
  for (const int output : {1, 2}) {  // /dev/stdout is written to where it stands
    struct stat own {};
    if (descriptor_ < 0 && fstat(output, &own) == 0 && same_file(status, own)) {
      descriptor_ = fcntl(output, F_DUPFD_CLOEXEC, 0);
    }
  }
  if (descriptor_ < 0 && S_ISREG(status.st_mode)) return false;
  if (descriptor_ < 0) descriptor_ = open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  if (descriptor_ < 0) refuse("expected a device or pipe that can be written to", errno);
  return true;
}

void AtomicFile::open_beside() {
  target_ = follow_links(path_);
  struct stat old {};
  const bool exists = stat(target_.c_str(), &old) == 0;
  if (exists && access(target_.c_str(), W_OK) != 0) refuse("expected a writable file", errno);
  temporary_ = temporary_name(target_);
  const mode_t mode = exists ? old.st_mode & 0777 : 0644;
  descriptor_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (descriptor_ < 0) {
    const int reason = errno;
    temporary_.clear();
    refuse("expected a writable folder", reason);
  }
  if (!exists) return;
  fchmod(descriptor_, mode);                                                       // open() took the umask off
  [[maybe_unused]] const int given = fchown(descriptor_, old.st_uid, old.st_gid);  // only root can, and need not
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
  if (temporary_.empty()) return;
  if (rename(temporary_.c_str(), target_.c_str()) != 0) refuse("expected a replaceable file", errno);
  temporary_.clear();
  flush_folder(folder_of(target_));
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

std::string follow_links(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr int kMostLinks = 40;  // Linux allows as many
  fs::path at = path;
  std::error_code error;
  for (int links = 0; fs::is_symlink(at, error); ++links) {
    check(links < kMostLinks, path, ": expected a file to write, found links that lead in a circle");
    const fs::path target = fs::read_symlink(at, error);
    check(!error, path, ": expected a link that can be read, found: ", error.message());
    at = at.parent_path() / target;
  }
  return at.string();
}

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  check(!error, path, ": expected a folder that can be made, found: ", error.message());
  check(std::filesystem::is_directory(path, error), path, ": expected a folder, found a file");
}

}  // namespace depthstill
