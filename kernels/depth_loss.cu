#include "kernels/core/partials.cuh"
#include "kernels/depth_loss.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSumBlocks = 1024;  // partial sums: fixed, so that the order of addition is the same on every GPU

__device__ bool counts(const DepthMapShape& shape, bool mask, int64_t i, float target) {
  return (shape.first_row == 0 || i / shape.W % shape.H >= shape.first_row) && (!mask || valid_depth(target));
}

__device__ float error_of(DepthLossKind kind, float pred, float target) {
  return kind == DepthLossKind::kSi ? logf(pred + kSiOffset) - logf(target + kSiOffset) : pred - target;
}

// Each block leaves {count, sum, sum of squares} (depth_loss.h) in partials (blocks, 3), summed in double; the grid
// strides over the pixels. Reads 8 B per pixel. Bound: memory.
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
  store_partials<kThreads>(sums, blockIdx.x, partials);
}

struct FinishDepthLoss {
  DepthLossKind kind;
  float* result;
  __device__ void operator()(const double (&sums)[3]) const {
    finish_depth_loss(kind, sums[0], sums[1], sums[2], result);
  }
};

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
  const unsigned blocks = blocks_for(shape.N * shape.H * shape.W, kThreads, kSumBlocks);
  auto* partials = static_cast<double*>(stream.scratch->get(blocks * 3 * sizeof(double)));
  launch(depth_loss_kernel, blocks, kThreads, 0, stream, kind, shape, mask, pred, target, partials);
  finish_partials<3>(stream, blocks, partials, FinishDepthLoss{kind, result});
}

void depth_loss_grad(Stream stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                     const float* target, const float* result, const float* dloss, float* dpred) {
  launch(depth_loss_grad_kernel, blocks_for(shape.N * shape.H * shape.W, kThreads), kThreads, 0, stream, kind, shape,
         mask, pred, target, result, dloss, dpred);
}

}  // namespace depthstill::cuda
