// Tensor core instructions in the emulator, from PTX's tables of fragments (mma.m16n8k16, ldmatrix.trans), element by
// element.
#include "kernels/core/mma.cuh"

#include <gtest/gtest.h>

#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr int kWarps = 2;

__device__ uint32_t pair(bf16 low, bf16 high) {
  return static_cast<uint32_t>(low.bits) | static_cast<uint32_t>(high.bits) << 16;
}

// Each warp computes d (16, 8) = c (16, 8) + a (16, 16) * b (16, 8), all row-major.
__global__ void product_kernel(const bf16* a, const bf16* b, const float* c, float* d) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  a += warp * 256;
  b += warp * 128;
  uint32_t a_words[4], b_words[2];
  for (int i = 0; i < 8; i += 2) {
    const int row = lane / 4 + (i % 4 >= 2 ? 8 : 0), column = lane % 4 * 2 + (i >= 4 ? 8 : 0);
    a_words[i / 2] = pair(a[row * 16 + column], a[row * 16 + column + 1]);
  }
  for (int i = 0; i < 4; i += 2) {
    const int row = lane % 4 * 2 + (i >= 2 ? 8 : 0), column = lane / 4;
    b_words[i / 2] = pair(b[row * 8 + column], b[(row + 1) * 8 + column]);
  }
  float sums[4];
  const auto place = [&](int i) { return warp * 128 + (lane / 4 + (i >= 2 ? 8 : 0)) * 8 + lane % 4 * 2 + i % 2; };
  for (int i = 0; i < 4; ++i) sums[i] = c[place(i)];
  multiply_add(sums, a_words, b_words[0], b_words[1]);
  for (int i = 0; i < 4; ++i) d[place(i)] = sums[i];
}

// The four tiles (8, 8) of a warp, each as fragments of its transpose: y (tile, lane, 2).
__global__ void transposed_kernel(const bf16* x, bf16* y) {
  __shared__ Chunk rows[32];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; i += 2) rows[lane].word[i / 2] = pair(x[lane * 8 + i], x[lane * 8 + i + 1]);
  __syncwarp();
  uint32_t words[4];
  load_transposed(&rows[lane], words);
  for (int i = 0; i < 4; ++i) {
    y[(i * 32 + lane) * 2].bits = static_cast<uint16_t>(words[i]);
    y[(i * 32 + lane) * 2 + 1].bits = static_cast<uint16_t>(words[i] >> 16);
  }
}

TEST(TensorCores, ProductsOfTwoWarps) {
  const auto a = random_values<bf16>(kWarps * 256, 1), b = random_values<bf16>(kWarps * 128, 2);
  const auto c = random_values<float>(kWarps * 128, 3);
  std::vector<double> expected;
  for (size_t i = 0; i < kWarps * 128; ++i) {
    const size_t warp = i / 128, row = i % 128 / 8, column = i % 8;
    double sum = to_double(c[i]);
    for (size_t k = 0; k < 16; ++k)
      sum += to_double(a[warp * 256 + row * 16 + k]) * to_double(b[warp * 128 + k * 8 + column]);
    expected.push_back(sum);
  }
  for_each_schedule([&] {
    const DeviceArray<bf16> da(a), db(b);
    const DeviceArray<float> dc(c);
    DeviceArray<float> d(kWarps * 128);
    launch(product_kernel, 1, kWarps * 32, 0, cuda_stream(), da.data(), db.data(), dc.data(), d.data());
    EXPECT_LE(max_relative_error(d.host(), expected), 1e-7);
  });
}

TEST(TensorCores, TransposedTiles) {
  const auto x = random_values<bf16>(256, 1);
  for_each_schedule([&] {
    const DeviceArray<bf16> dx(x);
    DeviceArray<bf16> y(256);
    launch(transposed_kernel, 1, 32, 0, cuda_stream(), dx.data(), y.data());
    const auto fragments = y.host();
    for (size_t tile = 0; tile < 4; ++tile) {
      for (size_t lane = 0; lane < 32; ++lane) {
        for (size_t k = 0; k < 2; ++k) {
          const size_t row = lane % 4 * 2 + k, column = lane / 4;
          EXPECT_EQ(fragments[(tile * 32 + lane) * 2 + k].bits, x[tile * 64 + row * 8 + column].bits);
        }
      }
    }
  });
}

}  // namespace
}  // namespace depthstill
