// Correct kernels on the emulator give the right results, whatever the schedule.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/core/launch.h"
#include "tests/kernels/kernel_test.h"
#include "tests/simt/fixtures/kernels/room/needless.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr unsigned kAll = 0xffffffffu;
constexpr int kTile = 32;

__global__ void transpose_kernel(const float* x, float* y, int rows, int cols) {
  __shared__ float tile[kTile][kTile + 1];
  const int x0 = static_cast<int>(blockIdx.x) * kTile, y0 = static_cast<int>(blockIdx.y) * kTile;
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  for (int i = ty; i < kTile; i += 8) {
    if (x0 + tx < cols && y0 + i < rows) tile[i][tx] = x[(y0 + i) * cols + x0 + tx];
  }
  __syncthreads();
  for (int i = ty; i < kTile; i += 8) {
    if (y0 + tx < rows && x0 + i < cols) y[(x0 + i) * rows + y0 + tx] = tile[tx][i];
  }
}

__global__ void histogram_kernel(const uint8_t* x, int64_t n, int* bins) {
  DYNAMIC_SHARED(int, local);
  for (unsigned b = threadIdx.x; b < 256; b += blockDim.x) local[b] = 0;
  __syncthreads();
  for (const int64_t i : grid_stride(n)) atomicAdd(&local[x[i]], 1);
  __syncthreads();
  for (unsigned b = threadIdx.x; b < 256; b += blockDim.x) atomicAdd(&bins[b], local[b]);
}

// Inclusive sums along each warp.
__global__ void scan_kernel(const int* x, int* y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  int sum = x[i];
  for (unsigned offset = 1; offset < 32; offset *= 2) {
    const int left = __shfl_up_sync(kAll, sum, offset);
    if (threadIdx.x % 32 >= offset) sum += left;
  }
  y[i] = sum;
}

// Reverses each warp through shared memory: __syncwarp is the only order there is.
__global__ void reverse_warp_kernel(const int* x, int* y) {
  __shared__ int lanes[64];
  lanes[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  y[threadIdx.x] = lanes[threadIdx.x ^ 31];
}

// y (8, 32)
__global__ void collectives_kernel(int* y) {
  const int lane = static_cast<int>(threadIdx.x);
  y[lane] = __shfl_sync(kAll, lane, 5);
  y[32 + lane] = __shfl_sync(kAll, lane, 3, 8);
  y[64 + lane] = __shfl_down_sync(kAll, lane, 2, 16);
  y[96 + lane] = __shfl_up_sync(kAll, lane, 1, 4);
  y[128 + lane] = __shfl_xor_sync(kAll, lane, 16);
  y[160 + lane] = __popc(__ballot_sync(kAll, lane % 3 == 0));
  y[192 + lane] = __any_sync(kAll, lane == 31) + 2 * __all_sync(kAll, lane < 31);
  // Two halves of a warp, each with a mask of its own.
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  y[224 + lane] = __shfl_sync(half, lane, lane < 16 ? 15 : 16);
}

// y (4, threads). The upper half of the threads leaves early: barriers are the business of the others.
__global__ void votes_kernel(int* y) {
  const unsigned i = threadIdx.x, n = blockDim.x;
  y[i] = __syncthreads_count(i % 2 == 0);
  y[n + i] = __syncthreads_or(i == n - 1);
  y[2 * n + i] = __syncthreads_and(i < n - 1);
  if (i >= n / 2) return;
  y[3 * n + i] = __syncthreads_count(1);
}

__global__ void atomics_kernel(int* integers, unsigned* bits, float* sum) {
  const int i = static_cast<int>(threadIdx.x);
  atomicMax(&integers[0], i);
  atomicMin(&integers[1], -i);
  if (atomicCAS(&integers[2], 0, i + 1) == 0) atomicExch(&integers[3], i + 1);
  atomicOr(&bits[0], 1u << i % 32);
  atomicAnd(&bits[1], ~(1u << i % 16));
  atomicAdd(sum, 0.5f);
}

__global__ void index_kernel(int* y) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  y[block * blockDim.x * blockDim.y * blockDim.z + thread] += static_cast<int>(1 + block);
}

__global__ void shared_is_nan_kernel(float* y) {
  __shared__ float fixed[32];
  DYNAMIC_SHARED(float, dynamic);
  y[blockIdx.x * 32 + threadIdx.x] = fixed[threadIdx.x] + dynamic[threadIdx.x];
  y[(gridDim.x + blockIdx.x) * 32 + threadIdx.x] = fixed[threadIdx.x];
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 1.0f;
}

__global__ void last_writer_kernel(int* y) { atomicExch(y, static_cast<int>(threadIdx.x)); }
__global__ void last_block_kernel(int* y) { *y = static_cast<int>(blockIdx.x); }

TEST(Simt, Transpose) {
  for (const auto& [rows, cols] : {std::pair{1, 1}, {33, 31}, {45, 70}, {64, 32}}) {
    SCOPED_TRACE(concat_text(rows, "x", cols));
    const auto x = random_values<float>(static_cast<size_t>(rows * cols), 1);
    std::vector<float> expected(x.size());
    for (int i = 0; i < rows * cols; ++i) {
      expected[static_cast<size_t>(i % cols * rows + i / cols)] = x[static_cast<size_t>(i)];
    }
    for_each_schedule([&] {
      const DeviceArray<float> dx(x);
      DeviceArray<float> dy(x.size());
      launch(transpose_kernel, dim3(blocks_for(cols, kTile), blocks_for(rows, kTile)), dim3(kTile, 8), 0, cuda_stream(),
             dx.data(), dy.data(), rows, cols);
      EXPECT_EQ(dy.host(), expected);
    });
  }
}

TEST(Simt, Histogram) {
  for (const size_t n : {size_t{0}, size_t{1}, size_t{257}, size_t{5003}}) {
    std::vector<uint8_t> x(n);
    std::vector<int> expected(256);
    for (size_t i = 0; i < n; ++i) ++expected[x[i] = static_cast<uint8_t>(i * i % 251)];
    for_each_schedule([&] {
      const DeviceArray<uint8_t> dx(x);
      DeviceArray<int> bins(std::vector<int>(256));
      launch(histogram_kernel, 3, 96, 256 * sizeof(int), cuda_stream(), dx.data(), static_cast<int64_t>(n),
             bins.data());
      EXPECT_EQ(bins.host(), expected);
    });
  }
}

TEST(Simt, WarpScanAndSyncwarp) {
  std::vector<int> x(64), sums(64), reversed(64);
  for (size_t i = 0; i < 64; ++i) {
    x[i] = static_cast<int>(i * 7 % 13) - 5;
    sums[i] = x[i] + (i % 32 == 0 ? 0 : sums[i - 1]);
  }
  for (size_t i = 0; i < 64; ++i) reversed[i] = x[i ^ 31];
  for_each_schedule([&] {
    const DeviceArray<int> dx(x);
    DeviceArray<int> dy(64), dz(64);
    launch(scan_kernel, 1, 64, 0, cuda_stream(), dx.data(), dy.data());
    EXPECT_EQ(dy.host(), sums);
    launch(reverse_warp_kernel, 1, 64, 0, cuda_stream(), dx.data(), dz.data());
    EXPECT_EQ(dz.host(), reversed);
  });
}

TEST(Simt, WarpCollectives) {
  for_each_schedule([&] {
    DeviceArray<int> dy(8 * 32);
    launch(collectives_kernel, 1, 32, 0, cuda_stream(), dy.data());
    const auto y = dy.host();
    for (int lane = 0; lane < 32; ++lane) {
      const auto row = [&](int r) { return y[static_cast<size_t>(r * 32 + lane)]; };
      EXPECT_EQ(row(0), 5);
      EXPECT_EQ(row(1), lane / 8 * 8 + 3);
      EXPECT_EQ(row(2), lane % 16 < 14 ? lane + 2 : lane);
      EXPECT_EQ(row(3), lane % 4 == 0 ? lane : lane - 1);
      EXPECT_EQ(row(4), lane ^ 16);
      EXPECT_EQ(row(5), 11);
      EXPECT_EQ(row(6), 1);
      EXPECT_EQ(row(7), lane < 16 ? 15 : 16);
    }
  });
}

TEST(Simt, BarrierVotesAndEarlyExit) {
  for (const int threads : {2, 64, 96, 1024}) {
    const auto n = static_cast<size_t>(threads);
    for_each_schedule([&] {
      DeviceArray<int> dy(4 * n);
      launch(votes_kernel, 2, static_cast<unsigned>(threads), 0, cuda_stream(), dy.data());
      const auto y = dy.host();
      for (size_t i = 0; i < n; ++i) {
        EXPECT_EQ(y[i], threads / 2);
        EXPECT_EQ(y[n + i], 1);
        EXPECT_EQ(y[2 * n + i], 0);
        EXPECT_EQ(y[3 * n + i], i < n / 2 ? threads / 2 : -1);
      }
    });
  }
}

TEST(Simt, Atomics) {
  for_each_schedule([&] {
    DeviceArray<int> integers(std::vector<int>(4));
    DeviceArray<unsigned> bits(std::vector<unsigned>{0, ~0u});
    DeviceArray<float> sum(std::vector<float>(1));
    launch(atomics_kernel, 1, 100, 0, cuda_stream(), integers.data(), bits.data(), sum.data());
    const auto i = integers.host();
    EXPECT_EQ(i[0], 99);
    EXPECT_EQ(i[1], -99);
    EXPECT_TRUE(i[2] >= 1 && i[2] <= 100);
    EXPECT_EQ(i[3], i[2]);
    EXPECT_EQ(bits.host(), (std::vector<unsigned>{~0u, 0xffff0000u}));
    EXPECT_EQ(sum.host()[0], 50.0f);
  });
}

TEST(Simt, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> expected;
  for (int block = 0; block < 2 * 3 * 4; ++block) expected.insert(expected.end(), 5 * 3 * 2, 1 + block);
  for_each_schedule([&] {
    DeviceArray<int> y(std::vector<int>(expected.size()));
    launch(index_kernel, dim3(2, 3, 4), dim3(5, 3, 2), 0, cuda_stream(), y.data());
    EXPECT_EQ(y.host(), expected);
  });
}

TEST(Simt, SharedMemoryStartsEveryBlockAsNan) {
  for_each_schedule([&] {
    DeviceArray<float> y(std::vector<float>(2 * 3 * 32));
    launch(shared_is_nan_kernel, 3, 32, 32 * sizeof(float), cuda_stream(), y.data());
    for (const float value : y.host()) EXPECT_TRUE(std::isnan(value));
  });
}

TEST(Simt, SchedulesDifferAndRepeat) {
  const auto last = [](void (*kernel)(int*), unsigned blocks, unsigned threads) {
    std::vector<int> results;
    for_each_schedule([&] {
      DeviceArray<int> y(1);
      launch(kernel, blocks, threads, 0, cuda_stream(), y.data());
      results.push_back(y.host()[0]);
    });
    return results;
  };
  for (const auto& results : {last(last_writer_kernel, 1, 100), last(last_block_kernel, 100, 1)}) {
    EXPECT_EQ(results[0], 99);
    EXPECT_EQ(results[1], 0);
    EXPECT_TRUE(results[2] != 99 && results[2] != 0) << results[2];
  }
  EXPECT_EQ(last(last_writer_kernel, 1, 100), last(last_writer_kernel, 1, 100));
  EXPECT_EQ(last(last_block_kernel, 100, 1), last(last_block_kernel, 100, 1));
}

TEST(Simt, GridHelpers) {
  EXPECT_EQ(blocks_for(0, 256), 0u);
  EXPECT_EQ(blocks_for(1, 256), 1u);
  EXPECT_EQ(blocks_for(256, 256), 1u);
  EXPECT_EQ(blocks_for(257, 256), 2u);
  EXPECT_EQ(blocks_for(int64_t{1} << 38, 256), 1u << 30);
  EXPECT_THROW(blocks_for(int64_t{1} << 40, 256), Error);
  EXPECT_EQ(blocks_for(300, 256, 1000), 2u);
  EXPECT_EQ(blocks_for(int64_t{1} << 40, 256, 1000), 3u);                          // result in the emulator
  launch(last_writer_kernel, blocks_for(0, 256), 256, 0, cuda_stream(), nullptr);  // an empty grid is an empty loop
}

TEST(Simt, ScaledComplementaryErrorFunction) {
  for (const float x : {-3.0f, -0.5f, 0.0f, 1.0f, 7.0f, 19.9f, 20.1f, 60.0f, 1e4f}) {
    const double expected = x < 26.0f ? std::exp(double{x} * double{x}) * std::erfc(double{x})
                                      : 1.0 / (std::sqrt(M_PI) * double{x}) * (1.0 - 0.5 / (double{x} * double{x}));
    EXPECT_NEAR(double{erfcxf(x)} / expected, 1.0, 3e-7) << x;
  }
}

TEST(NeedlessKernel, Reverses) {
  const auto x = random_values<float>(64, 3);
  const std::vector<float> expected(x.rbegin(), x.rend());
  for_each_schedule([&] {
    const DeviceArray<float> dx(x);
    DeviceArray<float> dy(64);
    cuda::needless(cuda_stream(), 64, dx.data(), dy.data());
    EXPECT_EQ(dy.host(), expected);
  });
}

}  // namespace
}  // namespace depthstill
