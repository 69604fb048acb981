// What kernels computed is kept for comparing the emulator with a GPU: with DEPTHSTILL_RECORD=FILE in the environment,
// each array that a test reads back is appended to FILE as a line "TEST TYPE BYTES" and its bytes
// (tests/gpu/compare.py).
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/core/bf16.h"

namespace depthstill::kernel_test {

inline bool recording = true;  // repetitions under other schedules turn it off

inline std::FILE* record_file() {  // null: none is wanted
  static std::FILE* const file = [] {
    const char* path = std::getenv("DEPTHSTILL_RECORD");
    return path != nullptr ? std::fopen(path, "wb") : nullptr;
  }();
  return file;
}

template <class T>
void record(const std::vector<T>& values) {
  std::FILE* const file = record_file();
  const ::testing::TestInfo* test = ::testing::UnitTest::GetInstance()->current_test_info();
  if (file == nullptr || test == nullptr || !recording) return;
  const char* type = std::is_same_v<T, bf16>     ? "bf16"
                     : std::is_same_v<T, float>  ? "f4"
                     : std::is_same_v<T, double> ? "f8"
                                                 : "bytes";
  std::fprintf(file, "%s.%s %s %zu\n", test->test_suite_name(), test->name(), type, values.size() * sizeof(T));
  std::fwrite(values.data(), sizeof(T), values.size(), file);
  std::fflush(file);
}

}  // namespace depthstill::kernel_test
