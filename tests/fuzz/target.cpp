#include "tests/fuzz/target.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <exception>
#include <filesystem>

#include "tests/io/allocation_watch.h"

namespace depthstill::fuzz {
namespace {

namespace fs = std::filesystem;

// /dev/shm is memory; where there is none, the system's folder for temporary files.
class Folder {
 public:
  Folder() {
    const char* const memory = "/dev/shm";
    const fs::path parent = access(memory, W_OK) == 0 ? fs::path(memory) : fs::temp_directory_path();
    path_ = (parent / "depthstill_fuzz_XXXXXX").string();
    check(mkdtemp(path_.data()) != nullptr, path_, ": expected a folder for inputs, which cannot be made");
    path_ = fs::canonical(path_).string();
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

Outcome run(const Target& target, Input input) {
  Outcome outcome;
  const AllocationWatch watch;
  try {
    outcome.refusal = message_of([&] { target.read(input); });
  } catch (const Contradiction& contradiction) {
    outcome.finding = contradiction.what;
  } catch (const std::exception& other) {
    outcome.finding = concat_text("an exception that is no Error: ", other.what());
  }
  if (outcome.finding.empty() && watch.peak_bytes() > most_bytes(input.size())) {
    outcome.finding = concat_text("expected at most ", most_bytes(input.size()), " bytes of memory for an input of ",
                                  input.size(), ", found ", watch.peak_bytes());
  }
  return outcome;
}

const std::string& work_folder() {
  static const Folder folder;
  return folder.path();
}

InputFile::InputFile(const std::string& name) : path_(work_folder() + '/' + name) {
  fs::create_directories(fs::path(path_).parent_path());
  descriptor_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  check(descriptor_ >= 0, path_, ": expected a file for inputs, which cannot be made");
}

void InputFile::write(Input bytes) const {
  const bool written = pwrite(descriptor_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
                       ftruncate(descriptor_, static_cast<off_t>(bytes.size())) == 0;
  if (!written) throw std::system_error(errno, std::generic_category(), path_);
}

}  // namespace depthstill::fuzz
