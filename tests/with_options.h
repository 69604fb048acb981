// Options of NVIDIA's libraries for a part of a test.
#pragma once

#include <string>

#include "kernels/core/error.h"
#include "kernels/core/library_options.h"

namespace depthstill::test {

// An engine or algorithm that was offered, and then did not run.
inline bool did_not_run(const Error& error) {
  const std::string what = error.what();
  return what.find("EXECUTION_FAILED") != std::string::npos || what.find("execution failed") != std::string::npos;
}

// Options of the process while this lives.
class WithOptions {
 public:
  explicit WithOptions(const LibraryOptions& options) : before_(library_options()) { library_options() = options; }
  ~WithOptions() { library_options() = before_; }
  WithOptions(const WithOptions&) = delete;
  WithOptions& operator=(const WithOptions&) = delete;

 private:
  LibraryOptions before_;
};

}  // namespace depthstill::test
