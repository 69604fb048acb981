#include "kernels/core/warp.cuh"
#include "kernels/screen_labels.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 1024, kClearThreads = 256;

__device__ inline bool finite(float v) { return v - v == 0.0f; }

// A block to an image: 4 bytes per pixel of its map. Bound: what one SM reads, as there are few images.
__global__ void __launch_bounds__(kThreads)
    label_faults_kernel(int64_t pixels, const float* __restrict__ maps, LabelFault* faults) {
  const float* map = maps + static_cast<int64_t>(blockIdx.x) * pixels;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float least = kInfinity, greatest = -kInfinity;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < pixels; i += kThreads) {
    const float value = map[i];
    if (!finite(value)) continue;
    least = fminf(least, value);
    greatest = fmaxf(greatest, value);
  }
  least = block_min<kThreads>(least);
  greatest = block_max<kThreads>(greatest);
  if (threadIdx.x == 0) faults[blockIdx.x] = label_fault(least, greatest);
}

// A thread to a value, the grid strides over those of all maps and then of all patches: 4 bytes, and what is cleared.
// Bound: DRAM. The first thread counts the faults.
__global__ void __launch_bounds__(kClearThreads)
    clear_labels_kernel(int64_t N, int64_t pixels, int64_t patch_pixels, float* maps, float* patches,
                        const LabelFault* __restrict__ faults, LabelTally* tally) {
  for (const int64_t i : grid_stride(N * (pixels + patch_pixels))) {
    const int64_t of_patches = i - N * pixels;
    float* value = of_patches < 0 ? maps + i : patches + of_patches;
    const int64_t n = of_patches < 0 ? i / pixels : of_patches / patch_pixels;
    if (faults[n] != LabelFault::kNone || !finite(*value)) *value = std::numeric_limits<float>::quiet_NaN();
  }
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  tally->labels += N;
  for (int64_t n = 0; n < N; ++n) tally->empty += faults[n] != LabelFault::kNone;
}

}  // namespace

void screen_labels(Stream stream, int64_t N, int64_t pixels, int64_t patch_pixels, float* maps, float* patches,
                   LabelFault* faults, LabelTally* tally) {
  launch(label_faults_kernel, static_cast<unsigned>(N), kThreads, 0, stream, pixels, maps, faults);
  const unsigned blocks = blocks_for(N * (pixels + patch_pixels), kClearThreads, 4096);
  launch(clear_labels_kernel, blocks, kClearThreads, 0, stream, N, pixels, patch_pixels, maps, patches, faults, tally);
}

}  // namespace depthstill::cuda
