// Reads every #include of the source tree: a layer may include itself and what stands below it (ARCHITECTURE.md).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>> kAllowed = {
    {"kernels", {"kernels"}},
    {"engine/io", {"engine/io", "kernels"}},
    {"engine", {"engine", "engine/io", "kernels"}},
    {"engine/data", {"engine/data", "engine", "engine/io", "kernels"}},
    {"engine/eval", {"engine/eval", "engine/data", "engine/io", "kernels"}},
    {"engine/train", {"engine/train", "engine/data", "engine", "engine/io", "kernels"}},
    {"models", {"models", "engine/data", "engine", "engine/io", "kernels"}},
    {"losses", {"losses", "models", "engine/train", "engine", "kernels"}},
    {"tools",
     {"tools", "losses", "models", "engine/train", "engine/eval", "engine/data", "engine", "engine/io", "kernels"}},
};

// The file between the quotes of an #include "..." line; empty for any other line.
std::string included_file(const std::string& line) {
  const size_t hash = line.find_first_not_of(" \t");
  const size_t open = line.find('"');
  if (hash == std::string::npos || line[hash] != '#' || line.find("include") > open || open == std::string::npos)
    return "";
  return line.substr(open + 1, line.find('"', open + 1) - open - 1);
}

// Every line of the sources below the folder `top`, with its file's path from the root.
void for_each_line(const std::string& top,
                   const std::function<void(const std::string& file, int number, const std::string& line)>& visit) {
  const fs::path root = DEPTHSTILL_SOURCE_DIR;
  for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
    const std::string extension = entry.path().extension();
    if (!std::set<std::string>{".h", ".cpp", ".cu", ".cuh"}.contains(extension)) continue;
    const std::string file = fs::relative(entry.path(), root).generic_string();
    std::ifstream in(entry.path());
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) visit(file, number, line);
  }
}

std::string layer_of(const std::string& path) {
  for (const char* nested : {"engine/io", "engine/data", "engine/eval", "engine/train"}) {
    if (path.starts_with(std::string(nested) + "/")) return nested;
  }
  return path.substr(0, path.find('/'));
}

TEST(Layering, NothingIncludesUpwards) {
  int seen = 0;
  for (const char* top : {"kernels", "engine", "models", "losses", "tools"}) {
    for_each_line(top, [&](const std::string& file, int number, const std::string& line) {
      const std::string target = included_file(line);
      if (target.empty()) return;
      ++seen;
      EXPECT_NE(target.find('/'), std::string::npos) << file << ":" << number << ": includes are from the root";
      EXPECT_TRUE(kAllowed.at(layer_of(file)).contains(layer_of(target)))
          << file << ":" << number << ": " << layer_of(file) << " must not include " << target;
    });
  }
  EXPECT_GT(seen, 100);
}

// A library that prints cannot be called by a program with an output of its own. Messages: kernels/core/messages.h.
TEST(Layering, OnlyToolsPrint) {
  const std::regex prints(
      R"((^|[^\w])(v?f?printf|f?puts|f?putc|putchar|perror|dprintf|cout|cerr|clog|stdout|stderr|STD(OUT|ERR)_FILENO)\b)"
      R"(|<iostream>)");
  for (const char* text : {"std::printf(\"x\");", "std::cerr << 1;", "fputs(a, stderr)", "#include <iostream>"}) {
    EXPECT_TRUE(std::regex_search(text, prints)) << text;
  }
  EXPECT_FALSE(std::regex_search("std::snprintf(text, 4, \"x\")", prints));
  for (const char* top : {"kernels", "engine", "losses", "models"}) {
    for_each_line(top, [&](const std::string& file, int number, const std::string& line) {
      if (file.starts_with("kernels/simt/")) return;  // the emulator is for tests, and reports to whoever runs them
      const std::string code = line.substr(0, line.find("//"));
      EXPECT_FALSE(std::regex_search(code, prints)) << file << ":" << number << ": only tools may print";
    });
  }
}

}  // namespace
