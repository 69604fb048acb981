// metrics.jsonl, appended line by line.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {

class MetricsFile {
 public:
  MetricsFile(std::string path, bool append) : path_(std::move(path)) {
    file_.reset(std::fopen(path_.c_str(), append ? "a" : "w"));
    check(file_ != nullptr, path_, ": cannot be written");
  }
  void write(const std::string& line) {
    const bool ok =
        std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size() && std::fflush(file_.get()) == 0;
    check(ok, path_, ": cannot be written, is the disk full?");
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace depthstill
