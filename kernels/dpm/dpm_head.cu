// Tensor core kernels for bf16 maps of 128 channels. A warp's tile is 16 pixels by 16 bins (mma.cuh).
#include <algorithm>
#include <type_traits>

#include "kernels/core/mma.cuh"
#include "kernels/dpm/dpm.cuh"
#include "kernels/dpm/dpm_head.h"

namespace depthstill::cuda {
namespace {

constexpr int kC = 128, kRowChunks = kC / 8;
constexpr int kMaxBins = 264, kBinBlocks = kMaxBins / 8;
constexpr int kBinRows = 272;     // kMaxBins in whole tiles of 16
constexpr int kTile = 16;         // pixels
constexpr float kNoBin = -1e30f;  // the logit of a bin past the last: e^x is 0, and x e^x too
constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kSumBlocks = 132;  // one per SM of an H100, as many as fit; partial sums: the same on every GPU
constexpr int kBinWarps = 9;     // warps of a block of dpm_head_dweight_kernel: half of the bins, in tiles of 16
constexpr int kBinThreads = kBinWarps * kWarpSize;
constexpr int kBinShares = 2;
constexpr int kSharePixels = 64;     // pixels that such a block has in shared memory
constexpr int kMaxPixelShares = 66;  // with kBinShares, one block per SM of an H100
static_assert(kBinWarps * kBinShares * 16 >= kBinRows);

__device__ Chunk load_chunk(const bf16* row, int chunk) { return reinterpret_cast<const Chunk*>(row)[chunk]; }

// Chunk `chunk` of a bin's weights, rounded; zeros past the last bin.
__device__ Chunk weight_chunk(const float* weight, int bins, int bin, int chunk) {
  Chunk c{};
  if (bin >= bins) return c;
  const float* w = weight + static_cast<int64_t>(bin) * kC + chunk * 8;
#pragma unroll
  for (int k = 0; k < 4; ++k) c.word[k] = pack_bf16(w[2 * k], w[2 * k + 1]);
  return c;
}

// All weights and biases into shared memory: tile (rows, kRowChunks), swizzled, and (rows).
__device__ void stage_weights(const float* weight, const float* bias, int bins, int rows, Chunk* tile, float* biases) {
  for (int i = static_cast<int>(threadIdx.x); i < rows * kRowChunks; i += kThreads) {
    tile[swizzled<kRowChunks>(i / kRowChunks, i % kRowChunks)] =
        weight_chunk(weight, bins, i / kRowChunks, i % kRowChunks);
  }
  for (int b = static_cast<int>(threadIdx.x); b < rows; b += kThreads) biases[b] = b < bins ? bias[b] : kNoBin;
}

// A lane's place in its warp's tile of 16 pixels by 8 bins (mma.cuh): pixels g and g + 8, bins 2 t and 2 t + 1.
struct TileLane {
  int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int g = lane / 4, t = lane % 4;
};

// The logits of a tile's pixels, all bins of them: logits[j] has bins 8 j + 2 t and the next of pixel g, then of g + 8.
__device__ __forceinline__ void make_logits(const bf16* x, const int64_t (&pixel)[2], int64_t pixels, const Chunk* tile,
                                            const float* biases, const TileLane& at, float (&logits)[kBinBlocks][4]) {
#pragma unroll
  for (int j = 0; j < kBinBlocks; ++j) {
    logits[j][0] = logits[j][2] = biases[8 * j + 2 * at.t];
    logits[j][1] = logits[j][3] = biases[8 * j + 2 * at.t + 1];
  }
#pragma unroll 1
  for (int c = at.t; c < kRowChunks; c += 4) {
    const Chunk low = pixel[0] < pixels ? load_chunk(x + pixel[0] * kC, c) : Chunk{};
    const Chunk high = pixel[1] < pixels ? load_chunk(x + pixel[1] * kC, c) : Chunk{};
    const Chunk* weights = tile + swizzled<kRowChunks>(at.g, c);
#pragma unroll
    for (int j = 0; j < kBinBlocks; ++j) multiply_chunks(logits[j], low, high, weights[8 * j * kRowChunks]);
  }
}

// These are of one pixel's logits z, which 4 lanes share: the largest, sum e^(z - largest), the same sum weighted with
// the bin's number, and (the lane's share of) the same sum weighted with z - largest.
struct PixelMoments {
  float largest = -INFINITY, sum = 0.0f, moment = 0.0f, log_moment = 0.0f;
};

// r: 0 for the tile's pixel g, 1 for g + 8.
template <bool kStudentTeacher>
__device__ __forceinline__ PixelMoments moments_of(const float (&logits)[kBinBlocks][4], int r, int t) {
  PixelMoments m;
#pragma unroll
  for (int j = 0; j < kBinBlocks; ++j) m.largest = fmaxf(m.largest, fmaxf(logits[j][2 * r], logits[j][2 * r + 1]));
  m.largest = warp_reduce<4>(m.largest, Max{});
  const float largest2 = m.largest * kLog2E;
#pragma unroll
  for (int j = 0; j < kBinBlocks; ++j) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const float e = fast_exp2(logits[j][2 * r + k] * kLog2E - largest2);
      m.sum += e;
      m.moment += e * static_cast<float>(8 * j + k);
      if constexpr (kStudentTeacher) m.log_moment += e * (logits[j][2 * r + k] - m.largest);
    }
  }
  m.moment += static_cast<float>(2 * t) * m.sum;
  m.sum = warp_reduce<4>(m.sum, Sum{});
  m.moment = warp_reduce<4>(m.moment, Sum{});
  return m;
}

struct PixelKl {
  float kl = 0.0f, pull = 0.0f;  // kl, and dpm's offset
};

// `row`: (columns) floats in shared memory, through which 4 lanes share a pixel's logits in the target's window.
template <bool kStudentTeacher>
__device__ __forceinline__ PixelKl kl_of(const DpmProblem& p, const float (&logits)[kBinBlocks][4], int r, int t,
                                         const PixelMoments& m, float log_sum, float target, float* row) {
  const int columns = p.table.columns;
  const float lse = m.largest + log_sum;
  const DpmWindow window = locate(p.table, p.bins.bins, target);
  const float norm = target_norm<4>(p.table, window, t);
#pragma unroll
  for (int j = 0; j < kBinBlocks; ++j) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int column = 8 * j + 2 * t + k - window.first;
      if (column >= 0 && column < columns) row[column] = logits[j][2 * r + k];
    }
  }
  __syncwarp();  // one is enough: the next 8 pixels have other rows
  PixelKl result;
  for (int j = t; j < columns; j += 4) {
    if (j < window.lo || j > window.hi) continue;
    add_kl(p, log_target(p.table, window, norm, j), row[j] - lse, &result.kl, &result.pull);
  }
  if constexpr (kStudentTeacher) result.kl += m.log_moment * fast_inverse(m.sum);
  result.kl = warp_reduce<4>(result.kl, Sum{}) + 0.0f * (m.sum + target);  // NaN shows, outside the window too
  if constexpr (kStudentTeacher) result.kl -= log_sum + p.table.log_floor;
  result.pull = kStudentTeacher ? result.kl : warp_reduce<4>(result.pull, Sum{});
  return result;
}

// dpm_head: a warp makes the logits of 16 pixels in registers, all bins of them, and reduces them over the 4 lanes that
// share a pixel. Blocks of 8 warps that stride over the pixels with the weights in shared memory: (kMaxBins, kC) bf16,
// kMaxBins floats and, with a teacher, per warp (16, columns) floats for the target's windows. Per pixel 256 B of x and
// 16 B of maps, 2 * 128 * 264 operations: bound by mma.sync and one exp per bin.
template <bool kStudentTeacher>
__global__ void __launch_bounds__(kThreads, 1)
    dpm_head_kernel(DpmProblem p, DpmHeadInput<bf16> head, const float* __restrict__ teacher, DpmMaps maps,
                    double* __restrict__ partials) {
  DYNAMIC_SHARED(Chunk, tile);
  auto* biases = reinterpret_cast<float*>(tile + kMaxBins * kRowChunks);
  const TileLane at;
  float* window_logits = biases + kMaxBins + (at.warp * kTile + at.g) * p.table.columns;
  const float first_centre = static_cast<float>(p.bins.centre(0)), width = static_cast<float>(p.bins.width());
  stage_weights(head.weight, head.bias, p.bins.bins, kMaxBins, tile, biases);
  __syncthreads();
  const int64_t pixels = p.shape.N * p.shape.H * p.shape.W, stride = static_cast<int64_t>(gridDim.x) * kWarps * kTile;
  double sums[2] = {0, 0};
  for (int64_t begin = (static_cast<int64_t>(blockIdx.x) * kWarps + at.warp) * kTile; begin < pixels; begin += stride) {
    const int64_t pixel[2] = {begin + at.g, begin + at.g + 8};
    float logits[kBinBlocks][4];
    make_logits(head.x, pixel, pixels, tile, biases, at, logits);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const bool inside = pixel[r] < pixels,
                 counted = inside && teacher != nullptr && pixel_counts(p, teacher, pixel[r]);
      const PixelMoments m = moments_of<kStudentTeacher>(logits, r, at.t);
      const float log_sum = logf(m.sum);
      PixelKl result;
      if (teacher != nullptr) {
        result = kl_of<kStudentTeacher>(p, logits, r, at.t, m, log_sum, counted ? teacher[pixel[r]] : p.table.d_min,
                                        window_logits + 8 * r * p.table.columns);
      }
      if (at.t == 0 && inside) {
        maps.depth[pixel[r]] = first_centre + width * (m.moment * fast_inverse(m.sum));
        maps.lse[pixel[r]] = m.largest + log_sum;
        if (maps.offset != nullptr) maps.offset[pixel[r]] = counted ? result.pull : 0.0f;
        if (counted) {
          sums[0] += static_cast<double>(result.kl);
          sums[1] += 1;
        }
      }
    }
  }
  store_partials<kThreads>(sums, blockIdx.x, partials);
}

// Multiplies the gradient of 8 channels by the slope of the activation that `y` came from, and adds it to their sums.
template <Activation kBelow>
__device__ __forceinline__ void pass_activation(const Chunk& y, Chunk& gradient, float (&sums)[8]) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float low = bf16_low(gradient.word[k]) * activation_slope<kBelow>(bf16_low(y.word[k]));
    const float high = bf16_high(gradient.word[k]) * activation_slope<kBelow>(bf16_high(y.word[k]));
    sums[2 * k] += low;
    sums[2 * k + 1] += high;
    gradient.word[k] = pack_bf16(low, high);
  }
}

// The block's sums of the lanes' chunks: partials (blocks, kC).
__device__ __forceinline__ void store_channel_sums(const TileLane& at, float (&sums)[8], float* partials) {
  __shared__ float warp_sums[kWarps][kC];
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    sums[k] += __shfl_xor_sync(kAllLanes, sums[k], kRowChunks);
    if (at.lane < kRowChunks) warp_sums[at.warp][at.lane * 8 + k] = sums[k];
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < kC; c += kThreads) {
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += warp_sums[w][c];
    partials[blockIdx.x * kC + c] = sum;
  }
}

// The gradients of 16 bins' logits from `first`, rounded, as the left operand of a product: rows are chunks of x.
__device__ __forceinline__ void make_dlogits(const DpmProblem& p, const DpmPixelGradient (&gradient)[2],
                                             const Chunk (&rows)[2][4], const Chunk* tile, const float* biases,
                                             int first, const TileLane& at, uint32_t (&dlogits)[4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int bin = first + 8 * half + 2 * at.t;
    float logits[4] = {biases[bin], biases[bin + 1], biases[bin], biases[bin + 1]};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      multiply_chunks(logits, rows[0][k], rows[1][k],
                      tile[swizzled<kRowChunks>(first + 8 * half + at.g, 4 * k + at.t)]);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      dlogits[2 * half + r] =
          pack_bf16(gradient[r].at(p, bin, logits[2 * r]), gradient[r].at(p, bin + 1, logits[2 * r + 1]));
    }
  }
}

// dx: a warp makes the logits of 16 pixels again, 16 bins at a time; their gradients, rounded, are the left operand of
// dx += dlogits * weight as they stand in its registers. Blocks as above; shared memory: (kBinRows, kC) bf16, kBinRows
// floats, and per warp (16, kC) bf16 to write whole lines and (16, columns) floats of targets. With an activation
// below, x is read again (from L2) and partials (blocks, kC) get the channels' sums. Per pixel 512 B of x and dx and 20
// B of maps, twice the operations: bound by mma.sync.
template <Activation kBelow>
__global__ void __launch_bounds__(kThreads, 1)
    dpm_head_dx_kernel(DpmProblem p, DpmHeadInput<bf16> head, DpmGradientMaps maps, bf16* __restrict__ dx,
                       float* __restrict__ partials) {
  DYNAMIC_SHARED(Chunk, tile);
  auto* biases = reinterpret_cast<float*>(tile + kBinRows * kRowChunks);
  const TileLane at;
  auto* lines = reinterpret_cast<Chunk*>(biases + kBinRows) + at.warp * kTile * kRowChunks;
  auto* targets = reinterpret_cast<float*>(reinterpret_cast<Chunk*>(biases + kBinRows) + kWarps * kTile * kRowChunks) +
                  at.warp * kTile * p.table.columns;
  stage_weights(head.weight, head.bias, p.bins.bins, kBinRows, tile, biases);
  __syncthreads();
  const float per_pixel = maps.per_pixel();
  const int64_t pixels = p.shape.N * p.shape.H * p.shape.W, stride = static_cast<int64_t>(gridDim.x) * kWarps * kTile;
  float sums[8] = {};  // sums of a lane's chunk: always the same one
  for (int64_t begin = (static_cast<int64_t>(blockIdx.x) * kWarps + at.warp) * kTile; begin < pixels; begin += stride) {
    Chunk rows[2][4] = {};
    DpmPixelGradient gradient[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t pixel = begin + at.g + 8 * r;
      const bool inside = pixel < pixels;
      gradient[r] = DpmPixelGradient::of<4>(p, maps, per_pixel, inside ? pixel : -1, at.t,
                                            targets + (at.g + 8 * r) * p.table.columns);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (inside) rows[r][k] = load_chunk(head.x + pixel * kC, 4 * k + at.t);
      }
    }
    __syncwarp();  // formal: targets are complete and the last lines read, before products that all lanes wait for
    float out[kC / 8][4] = {};
#pragma unroll 1
    for (int first = 0; first < kBinRows; first += 16) {
      uint32_t dlogits[4];
      make_dlogits(p, gradient, rows, tile, biases, first, at, dlogits);
      multiply_by_rows<kC>(out, dlogits, tile, first, at.lane);
    }
#pragma unroll
    for (int j = 0; j < kC / 8; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        lines[swizzled<kRowChunks>(at.g + 8 * r, j)].word[at.t] = pack_bf16(out[j][2 * r], out[j][2 * r + 1]);
      }
    }
    __syncwarp();  // lines are complete, and targets have been read
    for (int i = at.lane; i < kTile * kRowChunks; i += kWarpSize) {
      const int64_t row = begin + i / kRowChunks;
      if (row >= pixels) continue;
      Chunk line = lines[swizzled<kRowChunks>(i / kRowChunks, i % kRowChunks)];
      if constexpr (kBelow != Activation::kNone) {
        pass_activation<kBelow>(load_chunk(head.x + row * kC, i % kRowChunks), line, sums);
      }
      reinterpret_cast<Chunk*>(dx + row * kC)[i % kRowChunks] = line;
    }
  }
  if constexpr (kBelow != Activation::kNone) store_channel_sums(at, sums, partials);
}

// dweight and dbias: a warp keeps the weights of 16 bins and their gradient in registers and goes over a share of the
// pixels, 64 at a time in shared memory with their targets (two buffers); transposed logits (16 bins x 16 pixels)
// become their gradient, which is the left operand of dweight += dlogits^T * x. Grid: (shares of the pixels,
// kBinShares); partials per share: (bins, kC), then (bins). Per pixel 256 B of x and 20 B of maps, each from L2 the
// second time; the same operations as dx: bound by mma.sync.
__global__ void __launch_bounds__(kBinThreads, 1)
    dpm_head_dweight_kernel(DpmProblem p, DpmHeadInput<bf16> head, DpmGradientMaps maps, float* __restrict__ partials) {
  __shared__ DpmPixelGradient gradients[2][kSharePixels];
  DYNAMIC_SHARED(Chunk, tiles);  // 2 x (kSharePixels, kRowChunks), then 2 x (kSharePixels, columns) floats
  auto* targets = reinterpret_cast<float*>(tiles + 2 * kSharePixels * kRowChunks);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, g = lane / 4, t = lane % 4;
  const int bins = p.bins.bins;
  const int first_bin = (static_cast<int>(blockIdx.y) * kBinWarps + thread / kWarpSize) * 16;
  const int bin[2] = {first_bin + g, first_bin + g + 8};
  Chunk weights[2][4];
  float biases[2], dbias[2] = {0, 0};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int k = 0; k < 4; ++k) weights[r][k] = weight_chunk(head.weight, bins, bin[r], 4 * k + t);
    biases[r] = bin[r] < bins ? head.bias[bin[r]] : kNoBin;
  }
  float out[kC / 8][4] = {};
  const float per_pixel = maps.per_pixel();
  const int64_t pixels = p.shape.N * p.shape.H * p.shape.W, stride = static_cast<int64_t>(gridDim.x) * kSharePixels;
  int buffer = 0;
  for (int64_t begin = static_cast<int64_t>(blockIdx.x) * kSharePixels; begin < pixels; begin += stride, buffer ^= 1) {
    Chunk* tile = tiles + buffer * kSharePixels * kRowChunks;
    for (int i = thread; i < kSharePixels * kRowChunks; i += kBinThreads) {
      const int64_t pixel = begin + i / kRowChunks;
      tile[swizzled<kRowChunks>(i / kRowChunks, i % kRowChunks)] =
          pixel < pixels ? load_chunk(head.x + pixel * kC, i % kRowChunks) : Chunk{};
    }
    if (thread < 4 * kSharePixels) {
      const int own = thread / 4;
      const int64_t pixel = begin + own < pixels ? begin + own : -1;
      const DpmPixelGradient gradient = DpmPixelGradient::of<4>(
          p, maps, per_pixel, pixel, thread % 4, targets + (buffer * kSharePixels + own) * p.table.columns);
      if (thread % 4 == 0) gradients[buffer][own] = gradient;
    }
    __syncthreads();  // the only one: the other buffer was last read before it
#pragma unroll 1
    for (int first = 0; first < kSharePixels; first += 16) {
      uint32_t dlogits[4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float logits[4] = {biases[0], biases[0], biases[1], biases[1]};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          multiply_chunks(logits, weights[0][k], weights[1][k],
                          tile[swizzled<kRowChunks>(first + 8 * half + g, 4 * k + t)]);
        }
        const DpmPixelGradient* pixel = gradients[buffer] + first + 8 * half + 2 * t;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const float left = pixel[0].at(p, bin[r], logits[2 * r]), right = pixel[1].at(p, bin[r], logits[2 * r + 1]);
          dbias[r] += left + right;
          dlogits[2 * half + r] = pack_bf16(left, right);
        }
      }
      multiply_by_rows<kC>(out, dlogits, tile, first, lane);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    dbias[r] = warp_reduce<4>(dbias[r], Sum{});
    if (bin[r] >= bins) continue;
    float* share = partials + static_cast<int64_t>(blockIdx.x) * bins * (kC + 1);
    float* row = share + static_cast<int64_t>(bin[r]) * kC;
    if (t == 0) share[static_cast<int64_t>(bins) * kC + bin[r]] = dbias[r];
#pragma unroll
    for (int j = 0; j < kC / 8; ++j) {
      row[8 * j + 2 * t] = out[j][2 * r];
      row[8 * j + 2 * t + 1] = out[j][2 * r + 1];
    }
  }
}

// Adds up partials (shares, n) in order: the first `split` sums go to `first`, the others to `second`, unless null. A
// thread per sum. Reads at most 66 * 133 KB.
__global__ void __launch_bounds__(kThreads)
    add_shares_kernel(int64_t n, int64_t split, int shares, const float* partials, float* first, float* second) {
  for (const int64_t i : grid_stride(n)) {
    float sum = 0.0f;
    for (int s = 0; s < shares; ++s) sum += partials[s * n + i];
    if (i < split && first != nullptr) first[i] = sum;
    if (i >= split && second != nullptr) second[i - split] = sum;
  }
}

void add_shares(Stream stream, int64_t n, int64_t split, int shares, const float* partials, float* first,
                float* second) {
  launch(add_shares_kernel, blocks_for(n, kThreads), kThreads, 0, stream, n, split, shares, partials, first, second);
}

// A target has at most so many columns that what 8 warps keep of it fits into sm_80's 163 KB of shared memory beside
// the weights.
constexpr int kMaxColumns = 112;

template <class T>
void check_supported(const DpmProblem& p) {
  check(dpm_head_supported<T>(p.shape, p.bins), "dpm_head: expected bf16, ", kC, " channels and at most ", kMaxBins,
        " bins on CUDA, got ", std::is_same_v<T, bf16> ? "bf16" : "fp32", ", ", p.shape.channels, " and ", p.bins.bins);
}

void check_columns(const DpmTableView& table) {
  check(table.columns <= kMaxColumns, "dpm_head: expected a target of at most ", kMaxColumns,
        " bins on CUDA, sigma = ", table.sigma, " m spreads it over ", table.columns, "; do without the fused head");
}

int blocks_of(const DpmShape& s) { return static_cast<int>(blocks_for(s.N * s.H * s.W, kWarps * kTile, kSumBlocks)); }
int pixel_shares(const DpmShape& s) {
  return static_cast<int>(blocks_for(s.N * s.H * s.W, kSharePixels, kMaxPixelShares));
}

}  // namespace

template <class T>
bool dpm_head_supported(const DpmShape& shape, const DpmBins& bins) {
  return std::is_same_v<T, bf16> && shape.channels == kC &&
         bins.bins <= kMaxBins;  // fp32: tensor cores would round to TF32
}

template <class T>
size_t dpm_head_workspace(const DpmShape& shape, const DpmBins& bins) {
  const size_t sums = static_cast<size_t>(blocks_of(shape)) * 2 * sizeof(double);
  const size_t shares =
      static_cast<size_t>(pixel_shares(shape)) * static_cast<size_t>(bins.bins) * (kC + 1) * sizeof(float);
  const size_t below = static_cast<size_t>(blocks_of(shape)) * kC * sizeof(float);
  return std::max({sums, shares, below});
}

template <class T>
void dpm_head(Stream stream, const DpmProblem& problem, const DpmHeadInput<T>& head, const float* teacher,
              const DpmMaps& maps, float* workspace) {
  check_supported<T>(problem);
  if constexpr (std::is_same_v<T, bf16>) {
    const int blocks = blocks_of(problem.shape);
    auto* partials = teacher != nullptr ? reinterpret_cast<double*>(workspace) : nullptr;
    if (teacher != nullptr) check_columns(problem.table);
    const size_t shared_bytes = kMaxBins * (kRowChunks * sizeof(Chunk) + sizeof(float)) +
                                static_cast<size_t>(kWarps * kTile * problem.table.columns) * sizeof(float);
    auto* kernel = problem.options.kl == KlDirection::kStudentTeacher ? dpm_head_kernel<true> : dpm_head_kernel<false>;
    launch(kernel, static_cast<unsigned>(blocks), kThreads, shared_bytes, stream, problem, head, teacher, maps,
           partials);
    if (teacher != nullptr) finish_partials<2>(stream, blocks, partials, FinishDpm{maps.result});
  }
}

template <class T>
void dpm_head_grad(Stream stream, const DpmProblem& problem, const DpmHeadInput<T>& head, const DpmGradientMaps& maps,
                   const Conv2dGradients<T>& to, float* workspace) {
  check_supported<T>(problem);
  if constexpr (std::is_same_v<T, bf16>) {
    const auto columns = static_cast<size_t>(problem.table.columns);
    if (maps.dkl != nullptr) check_columns(problem.table);
    if (to.dx != nullptr) {
      const size_t shared_bytes = kBinRows * (kRowChunks * sizeof(Chunk) + sizeof(float)) +
                                  kWarps * kTile * (kRowChunks * sizeof(Chunk) + columns * sizeof(float));
      const int blocks = blocks_of(problem.shape);
      visit(to.below, [&]<Activation kBelow>() {
        launch(dpm_head_dx_kernel<kBelow>, static_cast<unsigned>(blocks), kThreads, shared_bytes, stream, problem, head,
               maps, to.dx, workspace);
      });
      if (to.dbias_below != nullptr) add_shares(stream, kC, kC, blocks, workspace, to.dbias_below, nullptr);
    }
    if (to.dweight == nullptr && to.dbias == nullptr) return;
    const int shares = pixel_shares(problem.shape);
    const size_t shared_bytes = 2 * kSharePixels * (kRowChunks * sizeof(Chunk) + columns * sizeof(float));
    launch(dpm_head_dweight_kernel, dim3(static_cast<unsigned>(shares), kBinShares), kBinThreads, shared_bytes, stream,
           problem, head, maps, workspace);
    const int64_t bins = problem.bins.bins, weights = bins * kC;
    add_shares(stream, weights + bins, weights, shares, workspace, to.dweight, to.dbias);
  }
}

#define DS_INSTANTIATE(T)                                                                                          \
  template bool dpm_head_supported<T>(const DpmShape&, const DpmBins&);                                            \
  template size_t dpm_head_workspace<T>(const DpmShape&, const DpmBins&);                                          \
  template void dpm_head(Stream, const DpmProblem&, const DpmHeadInput<T>&, const float*, const DpmMaps&, float*); \
  template void dpm_head_grad(Stream, const DpmProblem&, const DpmHeadInput<T>&, const DpmGradientMaps&,           \
                              const Conv2dGradients<T>&, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
