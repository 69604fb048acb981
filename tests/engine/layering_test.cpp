// Reads every #include of the source tree: a layer may include itself and what stands below it (ARCHITECTURE.md).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>> kAllowed = {
    {"kernels", {"kernels"}},
    {"engine/io", {"engine/io", "kernels"}},
    {"engine", {"engine", "engine/io", "kernels"}},
    {"engine/data", {"engine/data", "engine", "engine/io", "kernels"}},
    {"losses", {"losses", "engine", "kernels"}},
    {"models", {"models", "engine", "engine/io", "kernels"}},
    {"tools", {"tools", "models", "losses", "engine/data", "engine", "engine/io", "kernels"}},
};

// The file between the quotes of an #include "..." line; empty for any other line.
std::string included_file(const std::string& line) {
  const size_t hash = line.find_first_not_of(" \t");
  const size_t open = line.find('"');
  if (hash == std::string::npos || line[hash] != '#' || line.find("include") > open || open == std::string::npos)
    return "";
  return line.substr(open + 1, line.find('"', open + 1) - open - 1);
}

std::string layer_of(const std::string& path) {
  for (const char* nested : {"engine/io", "engine/data"}) {
    if (path.starts_with(std::string(nested) + "/")) return nested;
  }
  return path.substr(0, path.find('/'));
}

TEST(Layering, NothingIncludesUpwards) {
  const fs::path root = DEPTHSTILL_SOURCE_DIR;
  int seen = 0;
  for (const char* top : {"kernels", "engine", "losses", "models", "tools"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension();
      if (!std::set<std::string>{".h", ".cpp", ".cu", ".cuh"}.contains(extension)) continue;
      const std::string file = fs::relative(entry.path(), root).generic_string();
      std::ifstream in(entry.path());
      std::string line;
      for (int number = 1; std::getline(in, line); ++number) {
        const std::string target = included_file(line);
        if (target.empty()) continue;
        ++seen;
        EXPECT_NE(target.find('/'), std::string::npos) << file << ":" << number << ": includes are from the root";
        EXPECT_TRUE(kAllowed.at(layer_of(file)).contains(layer_of(target)))
            << file << ":" << number << ": " << layer_of(file) << " must not include " << target;
      }
    }
  }
  EXPECT_GT(seen, 100);
}

}  // namespace
