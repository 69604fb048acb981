#include "kernels/core/partials.cuh"
#include "kernels/depth_target.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSumBlocks = 1024;  // partial sums: fixed, so that the order of addition is the same on every GPU

// A thread to a pixel of y, the grid strides over them: 8 bytes. Each block leaves its number of pixels that count in
// partials (blocks), unless that is null. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    depth_target_kernel(DepthTargetShape shape, DepthRange range, TargetMode mode, const float* __restrict__ target,
                        float* __restrict__ y, double* partials) {
  const int64_t above = shape.H - shape.rows;
  double counted[1] = {0};
  for (const int64_t i : grid_stride(shape.N * shape.rows * shape.W)) {
    const int64_t line = i / shape.W, n = line / shape.rows;
    const float depth = target[i + (n + 1) * above * shape.W];
    if (valid_depth(depth, range) && line - n * shape.rows >= shape.first_row) counted[0] += 1;
    y[i] = depth_target_of(depth, range, mode);
  }
  store_partials<kThreads>(counted, blockIdx.x, partials);
}

struct AddToTally {
  TargetTally* tally;
  __device__ void operator()(const double (&counted)[1]) const { add_to_tally(counted[0], tally); }
};

}  // namespace

void depth_target(Stream stream, const DepthTargetShape& shape, DepthRange range, TargetMode mode, const float* target,
                  float* y, TargetTally* tally) {
  const unsigned blocks = blocks_for(shape.N * shape.rows * shape.W, kThreads, kSumBlocks);
  double* partials = tally == nullptr ? nullptr : static_cast<double*>(stream.scratch->get(blocks * sizeof(double)));
  launch(depth_target_kernel, blocks, kThreads, 0, stream, shape, range, mode, target, y, partials);
  if (tally != nullptr) finish_partials<1>(stream, blocks, partials, AddToTally{tally});
}

}  // namespace depthstill::cuda
