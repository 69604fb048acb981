// kernels/core/warp.cuh and kernels/core/pack.cuh, against sums and extremes computed one by one.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/core/pack.cuh"
#include "kernels/core/warp.cuh"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// y (3, threads): sum, maximum and minimum of the thread's warp.
__global__ void warp_kernel(const float* x, float* y) {
  const int i = thread_rank();
  const int threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  y[i] = warp_sum(x[i]);
  y[threads + i] = warp_max(x[i]);
  y[2 * threads + i] = warp_min(x[i]);
}

// y (rows, 4, kThreads): sum, sum again after the first, maximum and minimum of each row, as every thread sees them.
template <int kThreads>
__global__ void block_kernel(const float* x, int cols, float* y) {
  const float* row = x + static_cast<int64_t>(blockIdx.x) * cols;
  const int thread = thread_rank();
  float sum = 0.0f, largest = row[0], least = row[0];
  for (int c = thread; c < cols; c += kThreads) {
    sum += row[c];
    largest = Max{}(largest, row[c]);
    least = Min{}(least, row[c]);
  }
  float* out = y + static_cast<int64_t>(blockIdx.x) * 4 * kThreads + thread;
  out[0] = block_sum<kThreads>(sum);
  out[kThreads] = block_sum<kThreads>(2.0f * sum);
  out[2 * kThreads] = block_max<kThreads>(largest);
  out[3 * kThreads] = block_min<kThreads>(least);
}

template <int kThreads>
__global__ void moments_kernel(const float* x, float* y) {
  float moments[2] = {x[threadIdx.x], x[threadIdx.x] * x[threadIdx.x]};
  block_sum<kThreads>(moments);
  y[2 * threadIdx.x] = moments[0];
  y[2 * threadIdx.x + 1] = moments[1];
}

template <class T, int N>
__global__ void pack_kernel(int64_t packs, const T* x, T* y) {
  for (const int64_t i : grid_stride(packs)) {
    float values[N];
    load_floats(x + i * N, values);
    for (float& value : values) value += 1.0f;
    store_floats(y + i * N, values);
  }
}

TEST(WarpKernel, ReducesEachWarpOfABlockOfAnyShape) {
  for (const dim3 block : {dim3(32), dim3(96), dim3(8, 4, 2), dim3(1, 64)}) {
    const size_t threads = block.x * block.y * block.z;
    const auto x = random_values<float>(threads, 7);
    std::vector<double> expected(3 * threads);
    for (size_t i = 0; i < threads; ++i) {
      const auto first = x.begin() + static_cast<int64_t>(i / 32 * 32);
      expected[i] = std::accumulate(first, first + 32, 0.0);
      expected[threads + i] = *std::max_element(first, first + 32);
      expected[2 * threads + i] = *std::min_element(first, first + 32);
    }
    for_each_schedule([&] {
      const DeviceArray<float> dx(x);
      DeviceArray<float> dy(3 * threads);
      launch(warp_kernel, 1, block, 0, cuda_stream(), dx.data(), dy.data());
      EXPECT_LE(max_relative_error(dy.host(), expected), tolerance<float>(32));
    });
  }
}

template <int kThreads>
void check_block(dim3 block, size_t cols) {
  SCOPED_TRACE(concat_text(kThreads, " threads, ", cols, " columns"));
  const size_t rows = 3;
  const auto x = random_values<float>(rows * cols, 8);
  std::vector<double> expected;
  for (size_t r = 0; r < rows; ++r) {
    const auto row = x.begin() + static_cast<int64_t>(r * cols), end = row + static_cast<int64_t>(cols);
    const double sum = std::accumulate(row, end, 0.0);
    for (const double value :
         {sum, 2.0 * sum, double{*std::max_element(row, end)}, double{*std::min_element(row, end)}})
      expected.insert(expected.end(), kThreads, value);
  }
  for_each_schedule([&] {
    const DeviceArray<float> dx(x);
    DeviceArray<float> dy(expected.size());
    launch(block_kernel<kThreads>, rows, block, 0, cuda_stream(), dx.data(), static_cast<int>(cols), dy.data());
    EXPECT_LE(max_relative_error(dy.host(), expected), tolerance<float>(static_cast<int64_t>(cols)));
  });
}

TEST(WarpKernel, ReducesBlocksOnceAndAgain) {
  for (const size_t cols : {size_t{1}, size_t{31}, size_t{257}, size_t{1000}}) {
    check_block<32>(32, cols);
    check_block<128>(dim3(16, 8), cols);
    check_block<1024>(1024, cols);
  }
}

TEST(WarpKernel, ReducesSeveralValuesAtOnce) {
  const auto x = random_values<float>(96, 9);
  double sum = 0, squares = 0;
  for (const float v : x) sum += double{v}, squares += double{v} * double{v};
  std::vector<double> expected;
  for (int i = 0; i < 96; ++i) expected.insert(expected.end(), {sum, squares});
  for_each_schedule([&] {
    const DeviceArray<float> dx(x);
    DeviceArray<float> dy(192);
    launch(moments_kernel<96>, 1, 96, 0, cuda_stream(), dx.data(), dy.data());
    EXPECT_LE(max_relative_error(dy.host(), expected), tolerance<float>(96));
  });
}

TEST(WarpKernel, ExtremesKeepNan) {
  for (const size_t position : {size_t{0}, size_t{17}, size_t{63}}) {
    auto x = random_values<float>(64, 10);
    x[position] = kNan;
    for_each_schedule([&] {
      const DeviceArray<float> dx(x);
      DeviceArray<float> dy(4 * 64);
      launch(block_kernel<64>, 1, 64, 0, cuda_stream(), dx.data(), 64, dy.data());
      for (const float value : dy.host()) EXPECT_TRUE(std::isnan(value));
    });
  }
}

TEST(WarpKernel, PacksMoveEveryElement) {
  const auto check_packs = [&]<class T, int N>() {
    const int64_t packs = 3000;  // more than the threads of the grid
    const auto x = random_values<T>(packs * N, 11);
    std::vector<double> expected;
    for (const T v : x) expected.push_back(to_double(v) + 1.0);
    const DeviceArray<T> dx(x);
    DeviceArray<T> dy(x.size());
    ASSERT_TRUE(packable<N>(packs * N, dx.data(), dy.data()));
    launch(pack_kernel<T, N>, blocks_for(packs, 64, 5), 64, 0, cuda_stream(), packs, dx.data(), dy.data());
    EXPECT_LE(max_relative_error(dy.host(), expected), tolerance<T>());
  };
  check_packs.operator()<float, 4>();
  check_packs.operator()<float, 1>();
  check_packs.operator()<bf16, 8>();
  check_packs.operator()<bf16, 2>();
}

TEST(WarpKernel, PackableWantsWholePacksAndAlignment) {
  alignas(16) float x[8] = {};
  const float* none = nullptr;
  EXPECT_TRUE(packable<4>(8, x, none));
  EXPECT_FALSE(packable<4>(7, x));
  EXPECT_FALSE(packable<4>(8, x + 1));
  EXPECT_FALSE(packable<4>(8, x, x + 2));
  EXPECT_TRUE(packable<2>(6, x + 2));
  EXPECT_TRUE(packable<1>(7, x + 1));
}

}  // namespace
}  // namespace depthstill
