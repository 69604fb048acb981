// Temporary folders, the real data sets, and damaged copies of files.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/io/atomic_file.h"
#include "kernels/core/error.h"

namespace depthstill::testing_files {

// A fresh folder, removed with what is in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "depthstill_test_XXXXXX").string();
    check(mkdtemp(name.data()) != nullptr, name, ": cannot be made");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  size_t file_count() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::string path_;
};

// $DEPTHSTILL_TEST_DATA/<set>, else ../shared/data/<set> beside the source tree.
inline std::optional<std::string> find_data_set(const std::string& set) {
  namespace fs = std::filesystem;
  const char* folder = std::getenv("DEPTHSTILL_TEST_DATA");
#if defined(DEPTHSTILL_SOURCE_DIR)
  const fs::path tree = DEPTHSTILL_SOURCE_DIR;
#else
  const fs::path tree = fs::path(__FILE__).parent_path().parent_path().parent_path();
#endif
  const fs::path path = (folder != nullptr ? fs::path(folder) : tree.parent_path() / "shared" / "data") / set;
  if (!fs::is_directory(path)) return std::nullopt;
  return path.string();
}

// The message of the Error that `f` throws; "" if it throws none.
template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// One line that says where, what was expected and what was found.
inline void expect_clear(const std::string& message, const std::string& where) {
  EXPECT_NE(message.find(where), std::string::npos) << message;
  EXPECT_NE(message.find("expected"), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

// Writes without the flush of write_file, and to a new file, since some file systems flush one that is written over.
// This is for tests that write thousands of files.
inline void write_quickly(const std::string& path, std::span<const uint8_t> bytes) {
  std::filesystem::remove(path);
  FILE* out = std::fopen(path.c_str(), "wb");
  const bool whole =
      out != nullptr && (bytes.empty() || std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size());
  check(whole, path, ": cannot be written");
  std::fclose(out);
}

// Calls decode(damaged) for copies of `file` with random bytes changed, removed or repeated. Only Error may come out.
template <class Decode>
void try_mutations(const std::vector<uint8_t>& file, int count, const Decode& decode) {
  uint64_t state = 0x9e3779b97f4a7c15u;
  const auto next = [&](size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>((state >> 33) % n);
  };
  for (int i = 0; i < count; ++i) {
    std::vector<uint8_t> damaged = file;
    const size_t edits = 1 + next(8);
    for (size_t e = 0; e < edits && !damaged.empty(); ++e) {
      const size_t at = next(damaged.size());
      const auto where = damaged.begin() + static_cast<std::ptrdiff_t>(at);
      switch (next(5)) {
        case 0:
          damaged.erase(where, where + static_cast<std::ptrdiff_t>(next(damaged.size() - at) % 9));
          break;
        case 1:
          damaged.insert(where, static_cast<uint8_t>(next(256)));
          break;
        default:
          damaged[at] = static_cast<uint8_t>(next(4) == 0 ? 0xff : next(256));
      }
    }
    try {
      decode(damaged);
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  }
}

}  // namespace depthstill::testing_files
