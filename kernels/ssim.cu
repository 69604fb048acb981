#include "kernels/core/partials.cuh"
#include "kernels/ssim.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256, kRadius = kSsimRadius, kWindow = kSsimWindow;
constexpr int kTileW = 32, kTileH = 16;                                          // tile of the gradient
constexpr int kMomentW = kTileW + 2 * kRadius, kMomentH = kTileH + 2 * kRadius;  // windows that see the tile
constexpr int kInputW = kMomentW + 2 * kRadius, kInputH = kMomentH + 2 * kRadius;
constexpr int kMoments = 5, kMaps = 3;
constexpr int kInputSize = kInputW * kInputH, kRowSize = kMomentW * kInputH, kMapSize = kMomentW * kMomentH;
constexpr int kMapRowSize = kTileW * kMomentH;
// Shared memory: the inputs, the maps, and the moments' rows, whose place the maps' filtered rows take.
constexpr int kMapRegion = 2 * kInputSize, kRowRegion = kMapRegion + kMaps * kMapSize;
static_assert(kMaps * kMapRowSize <= kMoments * kRowSize);
constexpr size_t kSharedBytes = (kRowRegion + kMoments * kRowSize) * sizeof(float);

// exp(-k^2 / (2 std^2)) / sum
__device__ constexpr float kTaps[kWindow] = {0.00102838f, 0.00759876f, 0.03600077f, 0.10936069f,
                                             0.21300554f, 0.26601173f, 0.21300554f, 0.10936069f,
                                             0.03600077f, 0.00759876f, 0.00102838f};

struct Images {
  DepthMapShape shape;
  SsimMode mode;
  bool mask;
  const float *x, *y;  // (N, H, W)

  // Offset of pixel (row, col) of the cropped image n, or -1 outside and where it does not count.
  __device__ int64_t find(int64_t n, int64_t row, int64_t col) const {
    if (row < 0 || row >= shape.H - shape.first_row || col < 0 || col >= shape.W) return -1;
    const int64_t at = (n * shape.H + shape.first_row + row) * shape.W + col;
    return !mask || valid_depth(y[at]) ? at : -1;
  }
};

// Mean and second moments about it of the 11 pixels right of `at` in one row.
__device__ void filter_inputs(const float* xs, const float* ys, float (&moments)[kMoments]) {
  float x[kWindow], y[kWindow], mx = 0.0f, my = 0.0f, xx = 0.0f, yy = 0.0f, xy = 0.0f;
#pragma unroll
  for (int k = 0; k < kWindow; ++k) {
    x[k] = xs[k];
    y[k] = ys[k];
    mx += kTaps[k] * x[k];
    my += kTaps[k] * y[k];
  }
#pragma unroll
  for (int k = 0; k < kWindow; ++k) {
    const float u = x[k] - mx, v = y[k] - my;
    xx += kTaps[k] * u * u;
    yy += kTaps[k] * v * v;
    xy += kTaps[k] * u * v;
  }
  moments[0] = mx;
  moments[1] = my;
  moments[2] = xx;
  moments[3] = yy;
  moments[4] = xy;
}

// The window's moments from its 11 rows', kMomentW apart: variance = mean of the rows' + variance of the rows' means.
__device__ void combine_rows(const float* rows, float (&moments)[kMoments]) {
  float mx = 0.0f, my = 0.0f, xx = 0.0f, yy = 0.0f, xy = 0.0f;
#pragma unroll
  for (int k = 0; k < kWindow; ++k) {
    mx += kTaps[k] * rows[k * kMomentW];
    my += kTaps[k] * rows[k * kMomentW + kRowSize];
  }
#pragma unroll
  for (int k = 0; k < kWindow; ++k) {
    const float* row = rows + k * kMomentW;
    const float u = row[0] - mx, v = row[kRowSize] - my;
    xx += kTaps[k] * (row[2 * kRowSize] + u * u);
    yy += kTaps[k] * (row[3 * kRowSize] + v * v);
    xy += kTaps[k] * (row[4 * kRowSize] + u * v);
  }
  moments[0] = mx;
  moments[1] = my;
  moments[2] = xx;
  moments[3] = yy;
  moments[4] = xy;
}

struct Similarity {
  float s, a, b, k;  // S, dS/dmx at fixed second moments, dS/dvx, dS/dcxy
};

__device__ Similarity similarity(const float (&moments)[kMoments], SsimMode mode) {
  constexpr float kC1 = static_cast<float>(kSsimC1), kC2 = static_cast<float>(kSsimC2);
  const float mx = moments[0], my = moments[1], c = moments[4];
  const float sign = mode == SsimMode::kReference ? (c > 0.0f ? 1.0f : (c < 0.0f ? -1.0f : 0.0f)) : 1.0f;
  const float a1 = 2.0f * mx * my + kC1, a2 = 2.0f * sign * c + kC2;
  const float per_b1 = 1.0f / (mx * mx + my * my + kC1), per_b2 = 1.0f / (moments[2] + moments[3] + kC2);
  Similarity result;
  result.s = a1 * per_b1 * a2 * per_b2;
  result.a = 2.0f * per_b1 * (my * a2 * per_b2 - mx * result.s);
  result.b = -result.s * per_b2;
  result.k = 2.0f * sign * a1 * per_b1 * per_b2;
  return result;
}

// Pixel (row, col) of the moments' area among the inputs.
__device__ int input_at(int row, int col) { return (row + kRadius) * kInputW + col + kRadius; }

// Value and gradient in one pass. One block per 32 x 16 tile of the gradient, grid (tiles across, tiles down, N). Per
// block: 52 x 36 inputs, their rows' moments 42 x 36, the windows' maps 42 x 26, filtered back to the tile. 57 KB of
// shared memory. Per block {sum of S, counted pixels} of the tile in partials. Reads 8 B per pixel (29 B with the halo,
// from L2), writes 4 B; about 500 FMA per pixel. Bound: arithmetic. gradient (N, H, W) may be null.
// The gradient sums b (x - mx) with b up to 1e3 and x up to 80, so no x and mx may be summed apart: the maps hold
// e = a + 2 b (x - mx) + k (y - my) at their own pixel, and each pass adds the step from there to the pixel it sums
// for.
__global__ void __launch_bounds__(kThreads) ssim_kernel(Images images, float* gradient, double* partials) {
  DYNAMIC_SHARED(float, shared);
  float *xs = shared, *ys = shared + kInputSize, *maps = shared + kMapRegion, *rows = shared + kRowRegion;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t n = blockIdx.z;
  const int64_t top = static_cast<int64_t>(blockIdx.y) * kTileH, left = static_cast<int64_t>(blockIdx.x) * kTileW;

  for (int i = thread; i < kInputSize; i += kThreads) {
    const int64_t at = images.find(n, top + i / kInputW - 2 * kRadius, left + i % kInputW - 2 * kRadius);
    xs[i] = at >= 0 ? images.x[at] : 0.0f;
    ys[i] = at >= 0 ? images.y[at] : 0.0f;
  }
  __syncthreads();
  for (int i = thread; i < kRowSize; i += kThreads) {
    const int at = i / kMomentW * kInputW + i % kMomentW;
    float moments[kMoments];
    filter_inputs(xs + at, ys + at, moments);
#pragma unroll
    for (int m = 0; m < kMoments; ++m) rows[m * kRowSize + i] = moments[m];
  }
  __syncthreads();
  double sums[2] = {0, 0};
  for (int i = thread; i < kMapSize; i += kThreads) {
    const int row = i / kMomentW, col = i % kMomentW, tile_row = row - kRadius, tile_col = col - kRadius;
    float e = 0.0f, b = 0.0f, k = 0.0f;
    if (images.find(n, top + tile_row, left + tile_col) >= 0) {
      float moments[kMoments];
      combine_rows(rows + i, moments);
      const Similarity at = similarity(moments, images.mode);
      const int input = input_at(row, col);
      b = 2.0f * at.b;
      k = at.k;
      e = at.a + b * (xs[input] - moments[0]) + k * (ys[input] - moments[1]);
      if (tile_row >= 0 && tile_row < kTileH && tile_col >= 0 && tile_col < kTileW) {
        sums[0] += static_cast<double>(at.s);
        sums[1] += 1;
      }
    }
    maps[i] = e;
    maps[kMapSize + i] = b;
    maps[2 * kMapSize + i] = k;
  }
  const int64_t block = (n * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  store_partials<kThreads>(sums, block, partials);  // its barriers also end reads of `rows` and writes of `maps`
  if (gradient == nullptr) return;
  for (int i = thread; i < kMapRowSize; i += kThreads) {
    const int row = i / kTileW, col = i % kTileW, here = input_at(row, col + kRadius);
    float e = 0.0f, b = 0.0f, k = 0.0f;
#pragma unroll
    for (int tap = 0; tap < kWindow; ++tap) {
      const int from = input_at(row, col + tap), map = row * kMomentW + col + tap;
      const float tap_b = kTaps[tap] * maps[kMapSize + map], tap_k = kTaps[tap] * maps[2 * kMapSize + map];
      e += kTaps[tap] * maps[map] + tap_b * (xs[here] - xs[from]) + tap_k * (ys[here] - ys[from]);
      b += tap_b;
      k += tap_k;
    }
    rows[i] = e;
    rows[kMapRowSize + i] = b;
    rows[2 * kMapRowSize + i] = k;
  }
  __syncthreads();
  for (int i = thread; i < kTileW * kTileH; i += kThreads) {
    const int row = i / kTileW, col = i % kTileW, here = input_at(row + kRadius, col + kRadius);
    float sum = 0.0f;
#pragma unroll
    for (int tap = 0; tap < kWindow; ++tap) {
      const int from = input_at(row + tap, col + kRadius), map = (row + tap) * kTileW + col;
      sum += kTaps[tap] * (rows[map] + rows[kMapRowSize + map] * (xs[here] - xs[from]) +
                           rows[2 * kMapRowSize + map] * (ys[here] - ys[from]));
    }
    if (top + row < images.shape.H - images.shape.first_row && left + col < images.shape.W) {
      const int64_t at = (n * images.shape.H + images.shape.first_row + top + row) * images.shape.W + left + col;
      gradient[at] = images.find(n, top + row, left + col) >= 0 ? sum : 0.0f;
    }
  }
}

struct FinishSsim {
  float* result;
  __device__ void operator()(const double (&sums)[2]) const { finish_ssim(sums[0], sums[1], result); }
};

// Zeroes the rows above first_row: 4 B per pixel of them.
__global__ void __launch_bounds__(kThreads) clear_top_kernel(DepthMapShape shape, float* gradient) {
  const int64_t cleared = shape.first_row * shape.W;
  for (const int64_t i : grid_stride(shape.N * cleared)) gradient[i / cleared * shape.H * shape.W + i % cleared] = 0.0f;
}

// gradient *= -dloss / count. 8 B per pixel. Bound: memory.
__global__ void __launch_bounds__(kThreads)
    ssim_grad_kernel(int64_t n, const float* result, const float* dloss, float* gradient) {
  const float factor = -*dloss * result[1];
  for (const int64_t i : grid_stride(n)) gradient[i] *= factor;
}

}  // namespace

void ssim(Stream stream, const DepthMapShape& shape, SsimMode mode, bool mask, const float* x, const float* y,
          float* gradient, float* result) {
  const dim3 grid(blocks_for(shape.W, kTileW), blocks_for(shape.H - shape.first_row, kTileH),
                  static_cast<unsigned>(shape.N));
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  auto* partials = static_cast<double*>(stream.scratch->get(static_cast<size_t>(blocks) * 2 * sizeof(double)));
  launch(ssim_kernel, grid, kThreads, kSharedBytes, stream, Images{shape, mode, mask, x, y}, gradient, partials);
  finish_partials<2>(stream, blocks, partials, FinishSsim{result});
  if (gradient != nullptr && shape.first_row > 0) {
    launch(clear_top_kernel, blocks_for(shape.N * shape.first_row * shape.W, kThreads), kThreads, 0, stream, shape,
           gradient);
  }
}

void ssim_grad(Stream stream, int64_t n, const float* result, const float* dloss, float* gradient) {
  launch(ssim_grad_kernel, blocks_for(n, kThreads), kThreads, 0, stream, n, result, dloss, gradient);
}

}  // namespace depthstill::cuda
