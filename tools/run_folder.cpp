#include "tools/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "engine/io/atomic_file.h"
#include "engine/io/text_file.h"
#include "tools/progress.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr const char *kLock = "depthstill.lock", *kCheckpoint = "last.safetensors";

}  // namespace

RunFolder::RunFolder(std::string path, bool resume) : path_(std::move(path)) {
  check_contents(resume);
  make_folder(path_);
  lock();
  // Another process may have trained here until now.
  if (resume || !fs::exists(file(kCheckpoint))) return;
  close(descriptor_);  // there will be no destructor
  throw UsageError(path_ + ": holds a run already; give --resume to go on with it, or another --out");
}

RunFolder::~RunFolder() { close(descriptor_); }

std::string RunFolder::file(const char* name) const { return (fs::path(path_) / name).string(); }

void RunFolder::check_contents(bool resume) const {
  std::error_code ignored;
  const auto holds = [&](const char* name) { return fs::exists(file(name), ignored); };
  check(!resume || holds(kCheckpoint), path_, ": expected ", kCheckpoint, " to resume from, found none");
  const bool is_empty = !fs::is_directory(path_, ignored) || fs::is_empty(path_, ignored);
  const bool is_ours = holds(kLock) || (holds("recipe.toml") && holds("metrics.jsonl"));  // version 0.1 had no lock
  check_usage(resume || is_empty || is_ours, path_,
              ": expected an empty folder or that of a run, found something else; give another --out");
}

// The kernel drops the lock with the process, however that ends.
void RunFolder::lock() {
  const std::string name = file(kLock);
  descriptor_ = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  check(descriptor_ >= 0, name, ": expected a file that can be written to, found: ", std::strerror(errno));
  if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      close(descriptor_);
      const std::vector<std::string> lines = split_lines(read_text(name));
      fail(path_, ": expected a folder that no other run uses, found one in use by process ",
           lines.empty() ? "?" : printable(lines.front()));
    }
    log_line(concat_text(path_, ": not locked against a second run: ", std::strerror(errno)));
  }
  const std::string process = std::to_string(getpid()) + '\n';
  const auto bytes = static_cast<ssize_t>(process.size());
  const bool is_written =
      pwrite(descriptor_, process.data(), process.size(), 0) == bytes && ftruncate(descriptor_, bytes) == 0;
  if (!is_written) log_line(name + ": the process could not be noted: " + std::strerror(errno));
}

}  // namespace depthstill
