#include "kernels/context/context_scales.h"
#include "kernels/core/warp.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// One warp: its lanes take images in turns, and their sums are added in a fixed order. Bound: a launch.
__global__ void __launch_bounds__(kWarpSize)
    context_scales_kernel(int64_t N, int contexts, const ContextStats* stats, ContextScales to) {
  ScaleSums sums;
  for (int64_t n = threadIdx.x; n < N; n += kWarpSize) sums.add(stats, N, contexts, n);
  for (double* sum : {&sums.t_student, &sums.s_student, &sums.t_teacher, &sums.s_teacher, &sums.anchor, &sums.images,
                      &sums.contexts, &sums.bounded}) {
    *sum = warp_sum(*sum);
  }
  if (threadIdx.x == 0) sums.write(to);
}

// One thread per pixel, grid (blocks, N): reads 5 B and writes 4 B. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    context_anchor_grad_kernel(MapShape shape, int contexts, const float* x, const uint8_t* leaves,
                               const ContextStats* stats, const float* inverse_images, const float* dloss, float* dx) {
  const int64_t n = blockIdx.y, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= shape.pixels()) return;
  const AnchorSlope slope =
      AnchorSlope::of(stats[(n + 1) * contexts - 1], stats[(shape.N + n + 1) * contexts - 1], *dloss * *inverse_images);
  const int64_t at = n * shape.pixels() + i;
  dx[at] = leaves[at] == kNotCounted ? 0.0f : slope.at(x[at]);
}

}  // namespace

void context_scales(Stream stream, int64_t N, ContextKind kind, const ContextStats* stats, const ContextScales& to) {
  launch(context_scales_kernel, 1, kWarpSize, 0, stream, N, context_count(kind), stats, to);
}

void context_anchor_grad(Stream stream, const MapShape& shape, ContextKind kind, const float* x, const uint8_t* leaves,
                         const ContextStats* stats, const float* inverse_images, const float* dloss, float* dx) {
  const dim3 grid(blocks_for(shape.pixels(), kThreads), static_cast<unsigned>(shape.N));
  launch(context_anchor_grad_kernel, grid, kThreads, 0, stream, shape, context_count(kind), x, leaves, stats,
         inverse_images, dloss, dx);
}

}  // namespace depthstill::cuda
