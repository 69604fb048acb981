// Every way in which the code for GPUs lets the libraries compute something, one after the other.
#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "kernels/core/error.h"
#include "kernels/core/library_options.h"
#include "tests/with_options.h"

namespace depthstill::test {

// Calls compute() with number 0, 1, ... of every list taken, or its last, for the first 22 numbers.
inline void for_each_candidate(LibraryOptions options, const std::function<void()>& compute) {
  constexpr int kMost = 22;
  int ran = 0;
  for (options.candidate = 0; options.candidate < kMost; ++options.candidate) {
    SCOPED_TRACE(testing::Message() << "candidate " << options.candidate);
    const WithOptions with(options);
    try {
      compute();
      ++ran;
    } catch (const Error& error) {
      EXPECT_TRUE(did_not_run(error)) << error.what();
    }
  }
  EXPECT_GT(ran, kMost / 2);
}

inline LibraryOptions strict_options() {
  LibraryOptions options;
  options.strict_fp32 = true;
  options.measure = false;
  return options;
}

}  // namespace depthstill::test
