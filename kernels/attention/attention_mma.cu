#include <limits>

#include "kernels/attention/attention.cuh"
#include "kernels/core/mma.cuh"
#include "kernels/core/warp.cuh"

namespace depthstill::cuda {
namespace {

// A warp works on 16 rows (queries, or keys for their gradients) of one head, a block of 4 warps on 64; the block walks
// over the columns in tiles of 64, which lie in shared memory. Lane (g, t) of a warp (mma.cuh) has rows g and g + 8.
constexpr int kD = kMmaChannels, kRowChunks = kD / 8;
constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int kWarpRows = 16, kRows = kWarps * kWarpRows;
constexpr int kTile = 64, kTileChunks = kTile * kRowChunks;

// One head's tokens of one operand; those past the last are zero. Offsets have 32 bits (check_sizes): with 64 they take
// the registers of one block in three per SM.
struct Tokens {
  const bf16* data;
  int stride, count;

  __device__ __forceinline__ Chunk chunk(int token, int c) const {
    return token < count ? reinterpret_cast<const Chunk*>(data + token * stride)[c] : Chunk{};
  }
};

// A warp's rows as the left operand of products over channels.
struct Fragment {
  Chunk low[2], high[2];

  __device__ __forceinline__ Fragment(const Tokens& from, int first, int g, int t) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      low[k] = from.chunk(first + g, 4 * k + t);
      high[k] = from.chunk(first + g + 8, 4 * k + t);
    }
  }
  // s = rows * columns^T for columns 8 block .. 8 block + 7 of a tile.
  __device__ __forceinline__ void multiply(const Chunk* tile, int block, int g, int t, float (&s)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) s[k] = 0.0f;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      multiply_chunks(s, low[k], high[k], tile[swizzled<kRowChunks>(8 * block + g, 4 * k + t)]);
    }
  }
};

// Tokens [first, first + kTile) to shared memory, in the order that `swizzled` says.
__device__ __forceinline__ void stage(const Tokens& from, int first, Chunk* tile) {
#pragma unroll
  for (int i = 0; i < kTileChunks / kThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads, row = at / kRowChunks, c = at % kRowChunks;
    tile[swizzled<kRowChunks>(row, c)] = from.chunk(first + row, c);
  }
}

// Scores of 16 rows and 16 columns, rounded, as the left operand of products over those columns.
__device__ __forceinline__ void to_operand(const float (&left)[4], const float (&right)[4], uint32_t (&a)[4]) {
  a[0] = pack_bf16(left[0], left[1]);
  a[1] = pack_bf16(left[2], left[3]);
  a[2] = pack_bf16(right[0], right[1]);
  a[3] = pack_bf16(right[2], right[3]);
}

// factor[r] * out to rows `first` + g + 8 r of `to`, `stride` elements apart.
__device__ __forceinline__ void store_rows(const float (&out)[kD / 8][4], const float (&factor)[2], int first,
                                           int tokens, int stride, int g, int t, bf16* to) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first + g + 8 * r;
    if (row >= tokens) continue;
    auto* words = reinterpret_cast<Pack<bf16, 2>*>(to + row * stride);
#pragma unroll
    for (int j = 0; j < kD / 8; ++j) {
      words[4 * j + t] =
          std::bit_cast<Pack<bf16, 2>>(pack_bf16(factor[r] * out[j][2 * r], factor[r] * out[j][2 * r + 1]));
    }
  }
}

// y and lse of 64 queries: one block per 64 queries and head; the softmax of a row is kept up to date as its columns
// come. 16 KB of shared memory. Every block reads the head's k and v, from L2: 256 B per column for 2 * 64 * 64
// multiply-adds. Bound: mma.sync, and one exponential per score.
__global__ void __launch_bounds__(kThreads, 3)
    attention_mma_kernel(AttentionShape shape, int tiles, float scale, const bf16* __restrict__ qkv,
                         bf16* __restrict__ y, float* __restrict__ lse) {
  __shared__ Chunk keys[kTileChunks];
  __shared__ Chunk values[kTileChunks];
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int g = lane / 4, t = lane % 4;
  const Head<int> head(shape, tiles, kD);
  const int tokens = static_cast<int>(shape.T), stride = static_cast<int>(3 * shape.C);
  const int first = head.tile * kRows + warp * kWarpRows;
  const float scale_log2 = scale * kLog2E;
  const Fragment queries(Tokens{qkv + head.part(shape, 0), stride, tokens}, first, g, t);
  const Tokens k{qkv + head.part(shape, 1), stride, tokens}, v{qkv + head.part(shape, 2), stride, tokens};

  float out[kD / 8][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  for (int column = 0; column < tokens; column += kTile) {
    __syncthreads();  // the tiles before have been used
    stage(k, column, keys);
    stage(v, column, values);
    __syncthreads();
    float s[kTile / 8][4];
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) queries.multiply(keys, j, g, t, s[j]);
    if (column + kTile > tokens) {
#pragma unroll
      for (int j = 0; j < kTile / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (column + 8 * j + 2 * t + i % 2 >= tokens) s[j][i] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float tile_max = max[r];  // maximum of scores before the scale, which is > 0
#pragma unroll
      for (int j = 0; j < kTile / 8; ++j) {
        tile_max = max_or_nan(tile_max, max_or_nan(s[j][2 * r], s[j][2 * r + 1]));
      }
      tile_max = warp_reduce<4>(tile_max, [](float a, float b) { return max_or_nan(a, b); });
      const float factor = fast_exp2((max[r] - tile_max) * scale_log2), shift = tile_max * scale_log2;
      max[r] = tile_max;
      sum[r] *= factor;
#pragma unroll
      for (int j = 0; j < kTile / 8; ++j) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          s[j][i] = fast_exp2(s[j][i] * scale_log2 - shift);
          sum[r] += s[j][i];
          out[j][i] *= factor;  // as many channels as columns
        }
      }
    }
#pragma unroll
    for (int step = 0; step < kTile / 16; ++step) {
      uint32_t p[4];
      to_operand(s[2 * step], s[2 * step + 1], p);
      multiply_by_rows<kD>(out, p, values, 16 * step, lane);
    }
  }
  static_assert(kTile == kD);

  const Head end(shape, tiles, kD);  // the same again: see block_number
  const int last = end.tile * kRows + warp * kWarpRows;
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = warp_reduce<4>(sum[r], Sum{});
    inverse[r] = 1.0f / total;
    const int row = last + g + 8 * r;
    if (t == 0 && row < tokens) lse[end.stat(shape) + row] = max[r] * scale + logf(total);
  }
  store_rows(out, inverse, last, tokens, static_cast<int>(shape.C), g, t, y + end.token(shape));
}

// kKeys false: dq of 64 queries, columns are keys. kKeys true: dk and dv of 64 keys, columns are queries. Either way
//   s = a_rows a_columns^T, dp = b_rows b_columns^T, ds = p (dp - delta), da = scale ds a_columns
// with a = (q, k), b = (dy, v); and for keys dv = p dy. 16 columns at a time, of which only da and dv outlive the next.
// Bound: mma.sync, 3 (dq) or 4 products of T * T * d.
template <bool kKeys>
__global__ void __launch_bounds__(kThreads, kKeys ? 3 : 4)
    attention_grad_mma_kernel(AttentionShape shape, int tiles, float scale, const bf16* __restrict__ qkv,
                              const float* __restrict__ lse, const float* __restrict__ delta,
                              const bf16* __restrict__ dy, bf16* __restrict__ dqkv) {
  __shared__ Chunk a_columns[kTileChunks];
  __shared__ Chunk b_columns[kTileChunks];
  __shared__ float column_lse[kTile];
  __shared__ float column_delta[kTile];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int g = lane / 4, t = lane % 4;
  const Head<int> head(shape, tiles, kD);
  const int tokens = static_cast<int>(shape.T), channels = static_cast<int>(shape.C), stride = 3 * channels;
  const int first = head.tile * kRows + warp * kWarpRows;
  const int64_t stat = head.stat(shape);
  const float scale_log2 = scale * kLog2E;
  const Tokens q{qkv + head.part(shape, 0), stride, tokens}, k{qkv + head.part(shape, 1), stride, tokens};
  const Tokens v{qkv + head.part(shape, 2), stride, tokens}, dy_rows{dy + head.token(shape), channels, tokens};
  const Fragment a_rows(kKeys ? k : q, first, g, t), b_rows(kKeys ? v : dy_rows, first, g, t);
  float row_lse[2] = {}, row_delta[2] = {};
  if (!kKeys) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first + g + 8 * r;
      row_lse[r] = row < tokens ? lse[stat + row] * kLog2E : 0.0f;
      row_delta[r] = row < tokens ? delta[stat + row] : 0.0f;
    }
  }

  float da[kD / 8][4] = {}, db[kD / 8][4] = {};  // db: of keys only
  for (int column = 0; column < tokens; column += kTile) {
    __syncthreads();  // the columns before have been used
    stage(kKeys ? q : k, column, a_columns);
    stage(kKeys ? dy_rows : v, column, b_columns);
    if (thread < kTile) {
      const int token = column + thread;
      // Infinity makes p = 0 for columns that do not exist.
      column_lse[thread] = token >= tokens ? INFINITY : kKeys ? lse[stat + token] * kLog2E : 0.0f;
      column_delta[thread] = kKeys && token < tokens ? delta[stat + token] : 0.0f;
    }
    __syncthreads();
#pragma unroll 1
    for (int step = 0; step < kTile / 16; ++step) {
      float p[2][4], ds[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int block = 2 * step + half;
        a_rows.multiply(a_columns, block, g, t, p[half]);
        b_rows.multiply(b_columns, block, g, t, ds[half]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int r = i / 2, at = 8 * block + 2 * t + i % 2;
          p[half][i] = fast_exp2(p[half][i] * scale_log2 - (row_lse[r] + column_lse[at]));
          ds[half][i] = p[half][i] * (ds[half][i] - (row_delta[r] + column_delta[at]));
        }
      }
      uint32_t operand[4];
      if constexpr (kKeys) {
        to_operand(p[0], p[1], operand);
        multiply_by_rows<kD>(db, operand, b_columns, 16 * step, lane);
      }
      to_operand(ds[0], ds[1], operand);
      multiply_by_rows<kD>(da, operand, a_columns, 16 * step, lane);
    }
  }

  const Head end(shape, tiles, kD);  // the same again: see block_number
  const int last = end.tile * kRows + warp * kWarpRows;
  store_rows(da, {scale, scale}, last, tokens, stride, g, t, dqkv + end.part(shape, kKeys ? 1 : 0));
  if constexpr (kKeys) store_rows(db, {1.0f, 1.0f}, last, tokens, stride, g, t, dqkv + end.part(shape, 2));
}

// An image's offsets are counted in 32 bits, up to a tile past its last token.
void check_sizes(const AttentionShape& shape) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  check(shape.T + kTile <= kMost / (3 * shape.C), "attention: expected tokens x 3 channels below 2^31 on CUDA, got ",
        shape.T, " tokens of ", shape.C, " channels");
}

}  // namespace

void attention_mma(Stream stream, const AttentionShape& shape, float scale, const bf16* qkv, bf16* y, float* lse) {
  check_sizes(shape);
  const int tiles = tiles_of(shape, kRows);
  launch(attention_mma_kernel, blocks_of(shape, tiles), kThreads, 0, stream, shape, tiles, scale, qkv, y, lse);
}

void attention_grad_mma(Stream stream, const AttentionShape& shape, float scale, const bf16* qkv, const float* lse,
                        const float* delta, const bf16* dy, bf16* dqkv) {
  check_sizes(shape);
  const int tiles = tiles_of(shape, kRows);
  for (const auto kernel : {attention_grad_mma_kernel<false>, attention_grad_mma_kernel<true>}) {
    launch(kernel, blocks_of(shape, tiles), kThreads, 0, stream, shape, tiles, scale, qkv, lse, delta, dy, dqkv);
  }
}

}  // namespace depthstill::cuda
