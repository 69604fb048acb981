// Wrong kernels: what the emulator must refuse by itself, and what a sanitizer must see in the builds that have one.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/core/pack.cuh"
#include "kernels/core/warp.cuh"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

__global__ void divergent_barrier_kernel(float* y) {
  if (threadIdx.x < 16) {
    __syncthreads();
    y[threadIdx.x] = 1.0f;
  } else {
    __syncthreads();
    y[threadIdx.x] = 2.0f;
  }
}

// The lanes without the barrier go on to the shuffle.
__global__ void conditional_barrier_kernel(float* y) {
  if (threadIdx.x < 16) __syncthreads();
  y[threadIdx.x] = warp_sum(1.0f);
}

__global__ void exited_lane_kernel(float* y) {
  if (threadIdx.x >= 20) return;
  y[threadIdx.x] = warp_sum(1.0f);
}

__global__ void absent_lane_kernel(float* y) { y[threadIdx.x] = warp_sum(1.0f); }

__global__ void outside_mask_kernel(float* y) { y[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20); }

__global__ void mismatched_kernel(float* y) {
  if (threadIdx.x % 2 == 0) {
    y[threadIdx.x] = __shfl_sync(kAllLanes, 1.0f, 0);
  } else {
    __syncwarp();
  }
}

__global__ void missing_barrier_kernel(const float* x, float* y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = tile[63 - threadIdx.x];
}

// A shuffle brings the lanes together, but orders no memory.
__global__ void shuffle_is_no_barrier_kernel(const float* x, float* y) {
  __shared__ float tile[32];
  tile[threadIdx.x] = x[threadIdx.x];
  const float sum = warp_sum(1.0f);
  y[threadIdx.x] = sum + tile[31 - threadIdx.x];
}

__global__ void accumulating_kernel(float* y) {
  DYNAMIC_SHARED(float, sums);
  sums[threadIdx.x] += 1.0f;
  y[threadIdx.x] = sums[threadIdx.x];
}

__global__ void out_of_bounds_kernel(float* y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i > n) return;
  y[i] = 0.0f;
}

__global__ void dynamic_overflow_kernel(float* y) {
  DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + 1] = 1.0f;
  y[threadIdx.x] = tile[threadIdx.x];
}

// The store goes through a pointer, so that the compiler does not know the array.
__device__ void store(float* to, unsigned i) { to[i] = 1.0f; }
__global__ void static_overflow_kernel(float* y) {
  __shared__ float tile[64];
  store(tile, threadIdx.x + 1);
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}

__global__ void misaligned_kernel(const float* x, float* y) { store_pack(y, load_pack<4>(x + 1)); }

__global__ void index_overflow_kernel(float* y, int rows) {
  const int offset = rows * rows;
  if (offset >= 0) y[0] = 1.0f;
}

__global__ void correct_kernel(float* y) { y[threadIdx.x] = warp_sum(1.0f); }

// Runs f and returns the message of its Error; "" when it has none.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class SimtDiagnosis : public ::testing::Test {
 protected:
  // The kernel with one block of `threads` must be refused with all of `parts` in the message; then the emulator must
  // be usable again.
  void expect_error(void (*kernel)(float*), unsigned threads, std::initializer_list<const char*> parts) {
    for_each_schedule([&] {
      DeviceArray<float> y(64);
      const std::string error = error_of([&] { launch(kernel, 1, threads, 0, cuda_stream(), y.data()); });
      for (const char* part : parts) EXPECT_TRUE(contains(error, part)) << "no '" << part << "' in: " << error;
      EXPECT_TRUE(contains(error, "diagnosis_test.cpp:")) << error;
      launch(correct_kernel, 1, 32, 0, cuda_stream(), y.data());
      EXPECT_EQ(y.host()[31], 32.0f);
    });
  }
};

TEST_F(SimtDiagnosis, DivergentBarrier) {
  expect_error(divergent_barrier_kernel, 32, {"divergent barrier", "arrived at", "in block (0,0,0) of the launch at"});
}
TEST_F(SimtDiagnosis, Deadlock) {
  expect_error(conditional_barrier_kernel, 32, {"deadlock", "threads from (0,0,0) on wait at", "warp.cuh:"});
}
TEST_F(SimtDiagnosis, ExitedLane) { expect_error(exited_lane_kernel, 32, {"lane", "has exited", "warp.cuh:"}); }
TEST_F(SimtDiagnosis, AbsentLane) { expect_error(absent_lane_kernel, 20, {"lane 20", "the block does not have"}); }
TEST_F(SimtDiagnosis, LaneOutsideItsMask) { expect_error(outside_mask_kernel, 32, {"mask 0000ffff"}); }
TEST_F(SimtDiagnosis, MismatchedCollectives) { expect_error(mismatched_kernel, 32, {"mismatched warp collectives"}); }

TEST_F(SimtDiagnosis, InvalidLaunches) {
  DeviceArray<float> y(64);
  const auto error = [&](dim3 grid, dim3 block, size_t shared_bytes) {
    return error_of([&] { launch(correct_kernel, grid, block, shared_bytes, cuda_stream(), y.data()); });
  };
  EXPECT_TRUE(contains(error(1, 1025, 0), "diagnosis_test.cpp:"));
  EXPECT_TRUE(contains(error(1, 1025, 0), "block (1025,1,1)"));
  EXPECT_TRUE(contains(error(1, dim3(32, 0), 0), "block (32,0,1)"));
  EXPECT_TRUE(contains(error(1, dim3(1, 1, 65), 0), "block (1,1,65)"));
  EXPECT_TRUE(contains(error(dim3(1, 65536), 32, 0), "grid (1,65536,1)"));
  EXPECT_TRUE(contains(error(dim3(1, 1, 65536), 32, 0), "grid (1,1,65536)"));
  EXPECT_TRUE(contains(error(1, 32, 228 << 10), "233472 bytes of dynamic shared memory"));
  EXPECT_EQ(error(1, 32, 227 << 10), "");
}

TEST_F(SimtDiagnosis, DeviceFunctionOutsideAKernel) {
  EXPECT_TRUE(contains(error_of([] { __syncthreads(); }), "outside a kernel"));
}

// One thread holds a kernel open while another tries to launch.
std::atomic<int> holding{0};
__global__ void holding_kernel(float*) {
  holding = 1;
  while (holding != 2) std::this_thread::yield();
}

TEST_F(SimtDiagnosis, LaunchesFromTwoThreads) {
  DeviceArray<float> y(64);
  holding = 0;
  std::thread other([&] { launch(holding_kernel, 1, 1, 0, cuda_stream(), y.data()); });
  while (holding != 1) std::this_thread::yield();
  const std::string error = error_of([&] { launch(correct_kernel, 1, 32, 0, cuda_stream(), y.data()); });
  holding = 2;
  other.join();
  EXPECT_TRUE(contains(error, "launches must come from one thread at a time")) << error;
  launch(correct_kernel, 1, 32, 0, cuda_stream(), y.data());
  EXPECT_EQ(y.host()[0], 32.0f);
}

TEST_F(SimtDiagnosis, MissingBarrierDependsOnTheSchedule) {
  if (kThreadSanitizer) GTEST_SKIP() << "skipped: TSan reports it, see SimtDeathTest";
  const DeviceArray<float> x(random_values<float>(64, 1));
  std::vector<std::vector<float>> results;
  for_each_schedule([&] {
    DeviceArray<float> y(64);
    launch(missing_barrier_kernel, 1, 64, 0, cuda_stream(), x.data(), y.data());
    results.push_back(y.host());
  });
  EXPECT_GT(max_relative_error(results[0], results[1]), 0.0);
  EXPECT_GT(max_relative_error(results[0], results[2]), 0.0);
}

TEST_F(SimtDiagnosis, UninitialisedSharedMemoryIsNan) {
  DeviceArray<float> y(std::vector<float>(32));
  launch(accumulating_kernel, 1, 32, 32 * sizeof(float), cuda_stream(), y.data());
  for (const float value : y.host()) EXPECT_TRUE(std::isnan(value));
}

// ---- sanitizers: a child process must die of the report --------------------------------------------------------

class SimtDeathTest : public ::testing::Test {
 protected:
  void SetUp() override { ::testing::FLAGS_gtest_death_test_style = "threadsafe"; }
  DeviceArray<float> x_{random_values<float>(64, 1)};
  DeviceArray<float> y_{64};
};

TEST_F(SimtDeathTest, OutOfBounds) {
  if (!kAddressSanitizer) GTEST_SKIP() << "skipped: not an AddressSanitizer build";
  EXPECT_DEATH(launch(out_of_bounds_kernel, 3, 32, 0, cuda_stream(), y_.data(), 64), "heap-buffer-overflow");
}
TEST_F(SimtDeathTest, DynamicSharedOverflow) {
  if (!kAddressSanitizer) GTEST_SKIP() << "skipped: not an AddressSanitizer build";
  EXPECT_DEATH(launch(dynamic_overflow_kernel, 1, 64, 64 * sizeof(float), cuda_stream(), y_.data()),
               "heap-buffer-overflow");
}
TEST_F(SimtDeathTest, StaticSharedOverflow) {
  if (!kAddressSanitizer) GTEST_SKIP() << "skipped: not an AddressSanitizer build";
  EXPECT_DEATH(launch(static_overflow_kernel, 1, 64, 0, cuda_stream(), y_.data()),
               "global-buffer-overflow|insufficient space");  // ASan or UBSan, whoever is first
}
TEST_F(SimtDeathTest, MisalignedPack) {
  if (!kAddressSanitizer) GTEST_SKIP() << "skipped: not an UndefinedBehaviorSanitizer build";
  EXPECT_DEATH(launch(misaligned_kernel, 1, 1, 0, cuda_stream(), x_.data(), y_.data()), "misaligned address");
}
TEST_F(SimtDeathTest, IndexOverflow) {
  if (!kAddressSanitizer) GTEST_SKIP() << "skipped: not an UndefinedBehaviorSanitizer build";
  EXPECT_DEATH(launch(index_overflow_kernel, 1, 1, 0, cuda_stream(), y_.data(), 50000), "signed integer overflow");
}
TEST_F(SimtDeathTest, Races) {
  if (!kThreadSanitizer) GTEST_SKIP() << "skipped: not a ThreadSanitizer build";
  for (const auto& [kernel, threads] : {std::pair{&missing_barrier_kernel, 64}, {&shuffle_is_no_barrier_kernel, 32}}) {
    EXPECT_EXIT(
        {
          launch(kernel, 1, static_cast<unsigned>(threads), 0, cuda_stream(), x_.data(), y_.data());
          std::exit(0);  // the sanitizer's own status replaces 0 when it has reported
        },
        ::testing::ExitedWithCode(66), "data race");
  }
}

}  // namespace
}  // namespace depthstill
