#include "kernels/core/warp.cuh"
#include "kernels/depth_loss.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 1024;  // partial sums: fixed, so that the order of addition is the same on every GPU

__device__ bool counts(const DepthMapShape& shape, bool mask, int64_t i, float target) {
  return (shape.first_row == 0 || i / shape.W % shape.H >= shape.first_row) && (!mask || valid_depth(target));
}

__device__ float error_of(DepthLossKind kind, float pred, float target) {
  return kind == DepthLossKind::kSi ? logf(pred + kSiOffset) - logf(target + kSiOffset) : pred - target;
}

// Per block {count, sum, sum of squares} (depth_loss.h) in partials (blocks, 3), summed in double; the grid strides
// over the pixels. Reads 8 B per pixel. Bound: memory.
__global__ void __launch_bounds__(kThreads)
    depth_loss_kernel(DepthLossKind kind, DepthMapShape shape, bool mask, const float* pred, const float* target,
                      double* partials) {
  double sums[3] = {0, 0, 0};
  for (const int64_t i : grid_stride(shape.N * shape.H * shape.W)) {
    if (!counts(shape, mask, i, target[i])) continue;
    const double e = static_cast<double>(error_of(kind, pred[i], target[i]));
    sums[0] += 1;
    sums[1] += kind == DepthLossKind::kSi ? e : (kind == DepthLossKind::kMse ? e * e : fabs(e));
    sums[2] += e * e;
  }
  block_sum<kThreads>(sums);
  if (threadIdx.x == 0) {
    for (int k = 0; k < 3; ++k) partials[3 * blockIdx.x + static_cast<unsigned>(k)] = sums[k];
  }
}

// result (4) from partials (blocks, 3), by one block.
__global__ void __launch_bounds__(kThreads)
    depth_loss_finish_kernel(DepthLossKind kind, int blocks, const double* partials, float* result) {
  double sums[3] = {0, 0, 0};
  for (int b = static_cast<int>(threadIdx.x); b < blocks; b += kThreads) {
    for (int k = 0; k < 3; ++k) sums[k] += partials[3 * b + k];
  }
  block_sum<kThreads>(sums);
  if (threadIdx.x == 0) finish_depth_loss(kind, sums[0], sums[1], sums[2], result);
}

// One thread per pixel: 12 B. Bound: memory.
__global__ void __launch_bounds__(kThreads)
    depth_loss_grad_kernel(DepthLossKind kind, DepthMapShape shape, bool mask, const float* pred, const float* target,
                           const float* result, const float* dloss, float* dpred) {
  const float slope = *dloss * result[1], mean = result[2], constant = *dloss * result[3];
  for (const int64_t i : grid_stride(shape.N * shape.H * shape.W)) {
    float d = 0.0f;
    if (counts(shape, mask, i, target[i])) {
      const float e = error_of(kind, pred[i], target[i]);
      if (kind == DepthLossKind::kSi) d = (slope * (e - mean) + constant) / (pred[i] + kSiOffset);
      if (kind == DepthLossKind::kMse) d = slope * e;
      if (kind == DepthLossKind::kL1) d = slope * (e > 0.0f ? 1.0f : (e < 0.0f ? -1.0f : e));
    }
    dpred[i] = d;
  }
}

}  // namespace

void depth_loss(Stream stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                const float* target, float* result) {
  const unsigned blocks = blocks_for(shape.N * shape.H * shape.W, kThreads, kMaxBlocks);
  auto* partials = static_cast<double*>(stream.scratch->get(blocks * 3 * sizeof(double)));
  launch(depth_loss_kernel, blocks, kThreads, 0, stream, kind, shape, mask, pred, target, partials);
  launch(depth_loss_finish_kernel, 1, kThreads, 0, stream, kind, static_cast<int>(blocks), partials, result);
}

void depth_loss_grad(Stream stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                     const float* target, const float* result, const float* dloss, float* dpred) {
  launch(depth_loss_grad_kernel, blocks_for(shape.N * shape.H * shape.W, kThreads), kThreads, 0, stream, kind, shape,
         mask, pred, target, result, dloss, dpred);
}

}  // namespace depthstill::cuda
