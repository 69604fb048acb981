#include "kernels/core/partials.cuh"
#include "kernels/masked_mean.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSumBlocks = 1024;  // partial sums: fixed, so that the order of addition is the same on every GPU

// A thread to a pixel: 5 bytes. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    depth_mask_kernel(DepthMapShape shape, bool only_valid, const float* depth, uint8_t* mask) {
  for (const int64_t i : grid_stride(shape.N * shape.H * shape.W)) {
    const bool row = shape.first_row == 0 || i / shape.W % shape.H >= shape.first_row;
    mask[i] = row && (!only_valid || valid_depth(depth[i]));
  }
}

// Each block leaves {count, sum} in partials (blocks, 2), in double; the grid strides over the elements. Reads 5 bytes
// per element. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    masked_mean_kernel(int64_t n, const float* x, const uint8_t* mask, double* partials) {
  double sums[2] = {0, 0};
  for (const int64_t i : grid_stride(n)) {
    if (mask != nullptr && mask[i] == 0) continue;
    sums[0] += 1;
    sums[1] += static_cast<double>(x[i]);
  }
  store_partials<kThreads>(sums, blockIdx.x, partials);
}

struct FinishMaskedMean {
  bool mean;
  float* result;
  __device__ void operator()(const double (&sums)[2]) const { finish_masked_mean(mean, sums[0], sums[1], result); }
};

// A thread to an element: 5 bytes. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    masked_mean_grad_kernel(int64_t n, const uint8_t* mask, const float* result, const float* dy, float* dx) {
  const float slope = *dy * result[1];
  for (const int64_t i : grid_stride(n)) dx[i] = mask == nullptr || mask[i] != 0 ? slope : 0.0f;
}

}  // namespace

void depth_mask(Stream stream, const DepthMapShape& shape, bool only_valid, const float* depth, uint8_t* mask) {
  launch(depth_mask_kernel, blocks_for(shape.N * shape.H * shape.W, kThreads), kThreads, 0, stream, shape, only_valid,
         depth, mask);
}

void masked_mean(Stream stream, bool mean, int64_t n, const float* x, const uint8_t* mask, float* result) {
  const unsigned blocks = blocks_for(n, kThreads, kSumBlocks);
  auto* partials = static_cast<double*>(stream.scratch->get(blocks * 2 * sizeof(double)));
  launch(masked_mean_kernel, blocks, kThreads, 0, stream, n, x, mask, partials);
  finish_partials<2>(stream, blocks, partials, FinishMaskedMean{mean, result});
}

void masked_mean_grad(Stream stream, int64_t n, const uint8_t* mask, const float* result, const float* dy, float* dx) {
  launch(masked_mean_grad_kernel, blocks_for(n, kThreads), kThreads, 0, stream, n, mask, result, dy, dx);
}

}  // namespace depthstill::cuda
