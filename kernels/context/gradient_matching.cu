#include "kernels/context/gradient_matching.h"
#include "kernels/core/partials.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256, kReach = kGradientReach, kScales = kGradientScales;
constexpr int kTileW = 64, kTileH = 32;  // multiples of the reach, so that a tile's grids are the image's
constexpr int kSums = 3 * kScales;
static_assert(sizeof(GradientSums) == kSums * sizeof(double));

struct Problem {
  MapShape shape;
  int contexts;
  GradientMatchingOptions options;
  const float *x, *y;         // (N, H, W)
  const uint8_t* leaves;      // (N, H, W)
  const ContextStats* stats;  // (2, N, contexts)

  __device__ const ContextStats& student(int64_t n) const { return stats[(n + 1) * contexts - 1]; }
  __device__ ContextPair pair(int64_t n) const {
    const ContextStats &a = student(n), &b = stats[(shape.N + n + 1) * contexts - 1];
    return {a.t, a.s, b.t, b.s};
  }
};

// A tile and what its pixels look at around it, in shared memory.
template <int kBefore>
struct Tile {
  static constexpr int kW = kBefore + kTileW + kReach, kH = kBefore + kTileH + kReach;
  float R[kH * kW], a[kH * kW];
  uint8_t counts[kH * kW];

  __device__ static int at(int row, int col) { return (row + kBefore) * kW + col + kBefore; }  // of the tile

  // A barrier has to follow.
  __device__ void load(const Problem& p, int64_t n, int64_t top, int64_t left) {
    const ContextPair pair = p.pair(n);
    for (int i = static_cast<int>(threadIdx.x); i < kW * kH; i += kThreads) {
      const int64_t row = top + i / kW - kBefore, col = left + i % kW - kBefore;
      const bool inside = row >= 0 && row < p.shape.H && col >= 0 && col < p.shape.W;
      const int64_t pixel = (n * p.shape.H + row) * p.shape.W + col;
      const bool in = inside && p.leaves[pixel] != kNotCounted;
      const float student = in ? pair.student(p.x[pixel]) : 0.0f;
      a[i] = student;
      R[i] = in ? student - pair.teacher(p.y[pixel]) : 0.0f;
      counts[i] = in;
    }
  }
};

// A block to a tile of 64 x 32 pixels, grid (tiles across, tiles down, N): leaves GradientSums in partials (N, tiles).
// Reads 9 B per pixel, 1.4 times that from L2. Bound: memory.
__global__ void __launch_bounds__(kThreads) gradient_sums_kernel(Problem p, double* partials) {
  __shared__ Tile<0> tile;
  const int64_t n = blockIdx.z;
  const int64_t top = static_cast<int64_t>(blockIdx.y) * kTileH, left = static_cast<int64_t>(blockIdx.x) * kTileW;
  tile.load(p, n, top, left);
  __syncthreads();
  double sums[kSums] = {};
  for (int i = static_cast<int>(threadIdx.x); i < kTileW * kTileH; i += kThreads) {
    const int row = i / kTileW, col = i % kTileW, here = Tile<0>::at(row, col);
    if (tile.counts[here] == 0) continue;
#pragma unroll
    for (int k = 0; k < kScales; ++k) {
      const int step = 1 << k;
      if (k >= p.options.scales || (row | col) % step != 0) break;
      sums[kScales + k] += 1;
      for (const int there : {here + step, here + step * Tile<0>::kW}) {
        if (tile.counts[there] == 0) continue;
        const float difference = tile.R[there] - tile.R[here];
        sums[k] += static_cast<double>(fabsf(difference));
        sums[2 * kScales + k] += static_cast<double>(sign_of(difference) * (tile.a[there] - tile.a[here]));
      }
    }
  }
  const int64_t tiles = static_cast<int64_t>(gridDim.x) * gridDim.y;
  store_partials<kThreads>(sums, n * tiles + blockIdx.y * gridDim.x + blockIdx.x, partials);
}

// One block: adds the tiles' sums up in order, by image (images (N), in memory), then all. Bound: the launch.
__global__ void __launch_bounds__(kThreads) finish_gradient_kernel(int64_t N, int64_t tiles, const double* partials,
                                                                   double* images, GradientMatchingResult result) {
  for (int64_t i = threadIdx.x; i < N * kSums; i += kThreads) {
    const double* from = partials + i / kSums * tiles * kSums + i % kSums;
    double sum = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) sum += from[tile * kSums];
    images[i] = sum;
  }
  __syncthreads();
  GradientSums batch;
  const auto* of_image = reinterpret_cast<const GradientSums*>(images);
  for (int64_t n = 0; n < N; ++n) {
#pragma unroll
    for (int k = 0; k < kScales; ++k) {
      batch.value[k] += of_image[n].value[k];
      batch.count[k] += of_image[n].count[k];
    }
  }
  if (threadIdx.x == 0) finish_gradient_matching(batch, result.loss);
  for (int64_t n = threadIdx.x; n < N; n += kThreads) result.A[n] = finish_gradient_image(of_image[n], batch);
}

// dx of a tile of 64 x 32 pixels; grid as above. Reads 9 B per pixel, 1.9 times that from L2, writes 4 B. Bound:
// memory.
__global__ void __launch_bounds__(kThreads)
    gradient_matching_grad_kernel(Problem p, GradientMatchingResult result, const float* dloss, float* dx) {
  using Around = Tile<kReach>;
  __shared__ Around tile;
  const int64_t n = blockIdx.z;
  const int64_t top = static_cast<int64_t>(blockIdx.y) * kTileH, left = static_cast<int64_t>(blockIdx.x) * kTileW;
  tile.load(p, n, top, left);
  const ContextSlope slope = slope_of(p.student(n), static_cast<double>(*dloss), static_cast<double>(result.A[n]), 0,
                                      p.options.reference, p.options.detach);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTileW * kTileH; i += kThreads) {
    const int row = i / kTileW, col = i % kTileW, here = Around::at(row, col);
    if (top + row >= p.shape.H || left + col >= p.shape.W) continue;
    const int64_t pixel = (n * p.shape.H + top + row) * p.shape.W + left + col;
    float d = 0.0f;
    if (tile.counts[here] != 0) {
      float g = 0.0f;
#pragma unroll
      for (int k = 0; k < kScales; ++k) {
        const int step = 1 << k, down = step * Around::kW;
        if (k >= p.options.scales || (row | col) % step != 0) break;
        for (const int there : {here + step, here - step, here - down, here + down}) {
          if (tile.counts[there] != 0) g += result.loss[1 + k] * sign_of(tile.R[here] - tile.R[there]);
        }
      }
      const float v = p.x[pixel], side = v > slope.t ? 1.0f : v < slope.t ? -1.0f : 0.0f;
      d = slope.scale * (g - slope.deviation * side + (v == slope.t ? slope.median : 0.0f));
    }
    dx[pixel] = d;
  }
}

dim3 tiles_of(const MapShape& shape) {
  return dim3(blocks_for(shape.W, kTileW), blocks_for(shape.H, kTileH), static_cast<unsigned>(shape.N));
}

}  // namespace

void gradient_matching(Stream stream, const MapShape& shape, ContextKind kind, const GradientMatchingOptions& options,
                       const ContextInput& in, const GradientMatchingResult& result) {
  const Problem p{shape, context_count(kind), options, in.x, in.y, in.leaves, in.stats};
  const dim3 grid = tiles_of(shape);
  const int64_t tiles = static_cast<int64_t>(grid.x) * grid.y;
  auto* partials = static_cast<double*>(
      stream.scratch->get(static_cast<size_t>((shape.N * tiles + shape.N) * kSums) * sizeof(double)));
  launch(gradient_sums_kernel, grid, kThreads, 0, stream, p, partials);
  launch(finish_gradient_kernel, 1, kThreads, 0, stream, shape.N, tiles, partials, partials + shape.N * tiles * kSums,
         result);
}

void gradient_matching_grad(Stream stream, const MapShape& shape, ContextKind kind,
                            const GradientMatchingOptions& options, const ContextInput& in,
                            const GradientMatchingResult& result, const float* dloss, float* dx) {
  const Problem p{shape, context_count(kind), options, in.x, in.y, in.leaves, in.stats};
  launch(gradient_matching_grad_kernel, tiles_of(shape), kThreads, 0, stream, p, result, dloss, dx);
}

}  // namespace depthstill::cuda
