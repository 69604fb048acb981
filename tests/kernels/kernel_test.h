// Helpers for tests of kernels without the engine: cpu::foo against cuda::foo, on plain arrays.
//
// Convention: tests/kernels/foo_kernel_test.cpp tests kernels/foo.cu; its suites are named FooKernel... (layer_norm.cu:
// LayerNormKernel...), which is how the barrier check (tests/simt/mutate.py) finds them. Copy add_kernel_test.cpp.
// Wrap what calls cuda:: in for_each_schedule; keep sizes small but at least two blocks, so that a barrier that is
// missing between tiles or blocks matters. The same tests run on a GPU in a CUDA build.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/core/bf16.h"
#include "kernels/core/error.h"
#include "kernels/core/library_options.h"
#include "kernels/core/runtime.h"
#include "kernels/core/stream.h"
#include "tests/kernels/record.h"

namespace depthstill::kernel_test {

// Skips all tests of a CUDA build where there is no GPU.
class NeedsDevice : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override {
    std::string reason;
    if (!cuda::emulated() && cuda::device_count(&reason) == 0) GTEST_SKIP() << "skipped: " << reason;
  }
};
inline const bool kNeedsDevice = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new NeedsDevice);
  library_options().strict_fp32 = true;                     // the precision that the tolerances are made for
  if (cuda::emulated()) library_options().measure = false;  // its clock says nothing
  return true;
}();

// Runs f() under three orders of the emulator's threads; once on a GPU.
template <class F>
void for_each_schedule(F f) {
  struct Row {
    cuda::Schedule schedule;
    const char* name;
  };
  for (const Row& row : {Row{cuda::Schedule::kForward, "forward"}, Row{cuda::Schedule::kReverse, "reverse"},
                         Row{cuda::Schedule::kShuffled, "shuffled"}}) {
    SCOPED_TRACE(std::string("schedule ") + row.name);
    cuda::set_schedule(row.schedule, 42);
    f();
    recording = false;
    cuda::set_schedule(cuda::Schedule::kForward);
    if (!cuda::emulated() || ::testing::Test::HasFatalFailure()) break;
  }
  recording = true;
}

// Every get() is a new block of exactly `bytes`, full of NaN, so that ASan and the comparison see misuse.
class HostScratch : public Scratch {
 public:
  ~HostScratch() override { std::free(block_); }
  void* get(size_t bytes) override {
    std::free(block_);
    block_ = nullptr;
    check(posix_memalign(&block_, 64, bytes) == 0, "scratch: cannot allocate ", bytes, " bytes");
    if (bytes > 0) std::memset(block_, 0xff, bytes);
    return block_;
  }

 private:
  void* block_ = nullptr;
};

// Device memory of exactly n elements.
template <class T>
class DeviceArray {
 public:
  // n elements of NaN (all bits set, so -1 for integers).
  explicit DeviceArray(size_t n) : DeviceArray(n, nullptr) {
    const std::vector<uint8_t> ones(n * sizeof(T), 0xff);
    cuda::copy(data_, ones.data(), ones.size(), cuda::Direction::kToDevice, {});
    cuda::synchronize({});
  }
  DeviceArray(const std::vector<T>& values) : DeviceArray(values.size(), nullptr) {
    cuda::copy(data_, values.data(), n_ * sizeof(T), cuda::Direction::kToDevice, {});
    cuda::synchronize({});
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cuda::free_device(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return n_; }

  std::vector<T> host() const {  // a copy, after the kernels before it
    std::vector<T> values(n_);
    cuda::copy(values.data(), data_, n_ * sizeof(T), cuda::Direction::kToHost, {});
    cuda::synchronize({});
    record(values);
    return values;
  }

 private:
  DeviceArray(size_t n, std::nullptr_t) : n_(n), data_(static_cast<T*>(cuda::malloc_device(n * sizeof(T)))) {
    check(data_ != nullptr, "device memory is full");
  }

  size_t n_;
  T* data_;
};

class DeviceScratch : public Scratch {
 public:
  ~DeviceScratch() override { cuda::free_device(block_); }
  void* get(size_t bytes) override {
    cuda::synchronize({});
    cuda::free_device(block_);
    block_ = cuda::malloc_device(bytes);
    const std::vector<uint8_t> ones(bytes, 0xff);
    cuda::copy(block_, ones.data(), bytes, cuda::Direction::kToDevice, {});
    cuda::synchronize({});
    return block_;
  }

 private:
  void* block_ = nullptr;
};

inline Stream cpu_stream() {
  static HostScratch scratch;
  return {nullptr, &scratch};
}

inline Stream cuda_stream() {
  static DeviceScratch scratch;
  return {nullptr, &scratch};
}

// The values are uniform in [low, high); bf16 values are rounded from the float ones.
template <class T>
std::vector<T> random_values(size_t n, uint32_t seed, float low = -1.0f, float high = 1.0f) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<T> values(n);
  for (T& value : values) value = static_cast<T>(uniform(generator));
  return values;
}

// A CPU result's place, filled with NaN.
template <class T>
std::vector<T> nan_values(size_t n) {
  return std::vector<T>(n, static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
}

template <class T>
double to_double(T value) {
  return static_cast<double>(static_cast<float>(value));
}
inline double to_double(double value) { return value; }

// Largest |actual - expected| over the largest |expected|; infinite where sizes differ or exactly one side is NaN.
template <class A, class E>
double max_relative_error(const std::vector<A>& actual, const std::vector<E>& expected) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (actual.size() != expected.size()) return kInfinity;
  double error = 0, scale = std::numeric_limits<double>::min();
  for (size_t i = 0; i < actual.size(); ++i) {
    const double a = to_double(actual[i]), e = to_double(expected[i]);
    if (std::isnan(a) != std::isnan(e)) return kInfinity;
    if (std::isnan(a) || a == e) continue;  // equal infinities too
    error = std::max(error, std::abs(a - e));
  }
  for (const E& value : expected) {
    const double e = std::abs(to_double(value));
    if (std::isfinite(e)) scale = std::max(scale, e);
  }
  return error / scale;
}

// The tolerance holds for results of T that were accumulated in float over n terms.
template <class T>
double tolerance(int64_t n = 1) {
  const double rounding = std::is_same_v<T, bf16> ? 0x1p-8 : 0;  // rounding of the stored result
  return rounding + 4 * 0x1p-23 * std::sqrt(static_cast<double>(n));
}

}  // namespace depthstill::kernel_test
