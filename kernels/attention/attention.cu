#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/attention/attention.cuh"
#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/core/warp.cuh"

namespace depthstill::cuda {
namespace {

// A block of 16 x 16 threads works on 64 rows (queries, or keys for their gradients) of one head and walks over all
// columns in tiles. Thread (x, y) owns rows 4 y .. 4 y + 3; columns x, x + 16, ... of a tile of scores; and channels of
// its rows' results. The threads of a row are half a warp.
constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;
constexpr int kOwnRows = 4;
constexpr int kRows = kSide * kOwnRows;

struct Place {
  int x = static_cast<int>(threadIdx.x) % kSide;
  int row = static_cast<int>(threadIdx.x) / kSide * kOwnRows;  // the first of four

  __device__ Place() {}
};

// Rows of shared memory are 4 floats longer than their D channels: 16-byte reads of 8 neighbours meet all 32 banks.
template <int D>
constexpr int kPitch = D + 4;

// One head's rows of one operand.
template <class T>
struct Rows {
  const T* data;
  int64_t stride;
};

// Tokens [first, first + count) of `from` to shared memory, zero past the T tokens and past the d channels.
// Neighbouring threads read neighbouring channels, four at a time where d allows.
template <int D, class T>
__device__ __forceinline__ void load_tile(const Rows<T>& from, int64_t first, int count, int64_t tokens, int d,
                                          float* to) {
  const int pack = d % 4 == 0 ? 4 : 1;
  for (int i = static_cast<int>(threadIdx.x) * pack; i < count * D; i += kThreads * pack) {
    const int row = i / D, c = i % D;
    const bool inside = first + row < tokens && c < d;
    const T* at = from.data + (first + row) * from.stride + c;
    float* out = to + row * kPitch<D> + c;
    if (pack == 4) {
      float values[4] = {};
      if (inside) load_floats(at, values);
      store_floats(out, values);
    } else {
      *out = inside ? static_cast<float>(*at) : 0.0f;
    }
  }
}

// s[i][j] = sum_c a[row + i][c] b[x + 16 j][c]. Eight 16-byte reads per 64 multiply-adds of four columns.
template <int D, int kColumns>
__device__ __forceinline__ void multiply_transposed(const Place& at, const float* a, const float* b,
                                                    float (&s)[kOwnRows][kColumns]) {
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) s[i][j] = 0.0f;
  }
#pragma unroll 1
  for (int c = 0; c < D; c += 4) {
    float av[kOwnRows][4];
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) load_floats(a + (at.row + i) * kPitch<D> + c, av[i]);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      float bv[4];
      load_floats(b + (at.x + kSide * j) * kPitch<D> + c, bv);
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) s[i][j] += av[i][k] * bv[k];
      }
    }
  }
}

// Channels of a thread: groups of kVec neighbours, 16 * kVec apart.
template <int D>
constexpr int kVec = D / kSide < 4 ? D / kSide : 4;

// acc[i] += sum over kTile columns of p[row + i][column] * v[column], for the thread's channels.
template <int D, int kTile>
__device__ __forceinline__ void add_products(const Place& at, const float* p, const float* v,
                                             float (&acc)[kOwnRows][D / kSide]) {
#pragma unroll 1
  for (int column = 0; column < kTile; column += 4) {
    float pv[kOwnRows][4];
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) load_floats(p + (at.row + i) * kPitch<kTile> + column, pv[i]);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int c = 0; c < D / kSide; c += kVec<D>) {
        float vv[kVec<D>];
        load_floats(v + (column + k) * kPitch<D> + at.x * kVec<D> + c * kSide, vv);
#pragma unroll
        for (int i = 0; i < kOwnRows; ++i) {
#pragma unroll
          for (int l = 0; l < kVec<D>; ++l) acc[i][c + l] += pv[i][k] * vv[l];
        }
      }
    }
  }
}

// The thread's columns of a tile [row][column] of p or ds.
template <int kColumns>
__device__ __forceinline__ void store_columns(const Place& at, const float (&values)[kOwnRows][kColumns], float* tile) {
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) tile[(at.row + i) * kPitch<kColumns * kSide> + at.x + kSide * j] = values[i][j];
  }
}

// factor[i] * acc[i] to the thread's rows and channels; `stride` elements from token to token.
template <int D, class T>
__device__ __forceinline__ void store_rows(const Place& at, const float (&acc)[kOwnRows][D / kSide],
                                           const float (&factor)[kOwnRows], int64_t first, int64_t tokens, int d,
                                           int64_t stride, T* out) {
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    if (first + at.row + i >= tokens) continue;
    T* row = out + (first + at.row + i) * stride;
#pragma unroll
    for (int c = 0; c < D / kSide; c += kVec<D>) {
#pragma unroll
      for (int l = 0; l < kVec<D>; ++l) {
        const int channel = at.x * kVec<D> + c * kSide + l;
        if (channel < d) row[channel] = static_cast<T>(factor[i] * acc[i][c + l]);
      }
    }
  }
}

// Reduces over the 16 threads of a row.
template <class Combine>
__device__ __forceinline__ float row_reduce(float value, Combine combine) {
#pragma unroll
  for (int offset = kSide / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

template <int D>
constexpr int kForwardFloats = 2 * kRows* kPitch<D> + kRows* kPitch<kRows>;

// y and lse of 64 queries. One block per 64 queries and head; D >= d is 32, 64 or 128. Shared memory: queries, then
// keys and values in turn, and the probabilities: 36 to 85 KB. Every block reads the head's k and v, from L2: 2
// sizeof(T) d bytes per column for 128 d multiply-adds. Bound: fp32 FMA; reads of shared memory take 12 cycles per 16
// of FMA.
template <int D, class T>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(AttentionShape shape, int tiles, float scale, const T* __restrict__ qkv, T* __restrict__ y,
                     float* __restrict__ lse) {
  DYNAMIC_SHARED(float, shared);
  float *queries = shared, *keys = queries + kRows * kPitch<D>, *p = keys + kRows * kPitch<D>;
  const Place at;
  const int d = static_cast<int>(shape.d());
  const Head<int64_t> head(shape, tiles, d);
  const int64_t first = head.tile * kRows, stride = 3 * shape.C;
  const float scale_log2 = scale * kLog2E;
  load_tile<D>(Rows<T>{qkv + head.part(shape, 0), stride}, first, kRows, shape.T, d, queries);

  float acc[kOwnRows][D / kSide] = {}, max[kOwnRows], sum[kOwnRows] = {};
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) max[i] = -INFINITY;
  for (int64_t column = 0; column < shape.T; column += kRows) {
    __syncthreads();  // the values of the tile before have been used
    load_tile<D>(Rows<T>{qkv + head.part(shape, 1), stride}, column, kRows, shape.T, d, keys);
    __syncthreads();
    float s[kOwnRows][kRows / kSide];
    multiply_transposed<D>(at, queries, keys, s);
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
      float tile_max = max[i];
#pragma unroll
      for (int j = 0; j < kRows / kSide; ++j) {
        s[i][j] = column + at.x + kSide * j < shape.T ? s[i][j] * scale_log2 : -INFINITY;
        tile_max = Max{}(tile_max, s[i][j]);
      }
      tile_max = row_reduce(tile_max, Max{});
      const float factor = exp2f(max[i] - tile_max);
      max[i] = tile_max;
      sum[i] *= factor;
#pragma unroll
      for (int c = 0; c < D / kSide; ++c) acc[i][c] *= factor;
#pragma unroll
      for (int j = 0; j < kRows / kSide; ++j) {
        s[i][j] = exp2f(s[i][j] - tile_max);
        sum[i] += s[i][j];
      }
    }
    store_columns(at, s, p);
    __syncthreads();  // the keys have been used
    load_tile<D>(Rows<T>{qkv + head.part(shape, 2), stride}, column, kRows, shape.T, d, keys);
    __syncthreads();
    add_products<D, kRows>(at, p, keys, acc);
  }

  float inverse[kOwnRows];
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    const float total = row_reduce(sum[i], Sum{});
    inverse[i] = 1.0f / total;
    const int64_t t = first + at.row + i;
    if (at.x == 0 && t < shape.T) lse[head.stat(shape) + t] = max[i] / kLog2E + logf(total);
  }
  store_rows<D>(at, acc, inverse, first, shape.T, d, shape.C, y + head.token(shape));
}

constexpr int kDeltaRows = kThreads / kWarpSize;

// delta[n, h, t] = sum_c dy y. One warp per row of d channels; reads y and dy once. Bound: DRAM.
template <class T>
__global__ void __launch_bounds__(kThreads)
    attention_delta_kernel(AttentionShape shape, const T* __restrict__ y, const T* __restrict__ dy,
                           float* __restrict__ delta) {
  const int64_t row = blockIdx.x * static_cast<int64_t>(kDeltaRows) + threadIdx.x / kWarpSize;
  if (row >= shape.N * shape.T * shape.heads) return;  // a whole warp
  const int64_t d = shape.d();
  float sum = 0.0f;
  for (int64_t c = threadIdx.x % kWarpSize; c < d; c += kWarpSize) {
    sum += static_cast<float>(y[row * d + c]) * static_cast<float>(dy[row * d + c]);
  }
  sum = warp_sum(sum);
  const int64_t h = row % shape.heads, token = row / shape.heads;
  if (threadIdx.x % kWarpSize == 0) {
    delta[(token / shape.T * shape.heads + h) * shape.T + token % shape.T] = sum;
  }
}

// Columns of a tile: with 128 channels, 64 would leave no room for the other operands.
template <int D>
constexpr int kTile = D > 64 ? 32 : 64;
template <int D>
constexpr int kGradFloats = 2 * (kRows + kTile<D>)*kPitch<D> + kRows* kPitch<kTile<D>> + 2 * kTile<D>;

// kKeys false: dq of 64 queries, columns are keys. kKeys true: dk and dv of 64 keys, columns are queries. Either way
//   s = a_rows a_columns^T, dp = b_rows b_columns^T, ds = p (dp - delta), da = scale ds a_columns
// with a = (q, k), b = (dy, v); and for keys dv = p dy. Geometry of attention_kernel; shared memory holds both operands
// of rows and columns: 55 KB for D = 32, 88 KB for 64, 111 KB for 128. Bound: fp32 FMA, 3 (dq) or 4 products of
// T * T * d.
template <int D, bool kKeys, class T>
__global__ void __launch_bounds__(kThreads)
    attention_grad_kernel(AttentionShape shape, int tiles, float scale, const T* __restrict__ qkv,
                          const float* __restrict__ lse, const float* __restrict__ delta, const T* __restrict__ dy,
                          T* __restrict__ dqkv) {
  constexpr int kColumns = kTile<D> / kSide;
  DYNAMIC_SHARED(float, shared);
  float *a_rows = shared, *b_rows = a_rows + kRows * kPitch<D>;
  float *a_columns = b_rows + kRows * kPitch<D>, *b_columns = a_columns + kTile<D> * kPitch<D>;
  float *tile = b_columns + kTile<D> * kPitch<D>, *column_lse = tile + kRows * kPitch<kTile<D>>;
  float* column_delta = column_lse + kTile<D>;
  const Place at;
  const int d = static_cast<int>(shape.d());
  const Head<int64_t> head(shape, tiles, d);
  const int64_t first = head.tile * kRows, stride = 3 * shape.C, stat = head.stat(shape);
  const float scale_log2 = scale * kLog2E;
  const Rows<T> q{qkv + head.part(shape, 0), stride}, k{qkv + head.part(shape, 1), stride};
  const Rows<T> v{qkv + head.part(shape, 2), stride}, dy_rows{dy + head.token(shape), shape.C};
  load_tile<D>(kKeys ? k : q, first, kRows, shape.T, d, a_rows);
  load_tile<D>(kKeys ? v : dy_rows, first, kRows, shape.T, d, b_rows);
  float row_lse[kOwnRows] = {}, row_delta[kOwnRows] = {};
  if (!kKeys) {
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
      const int64_t t = first + at.row + i;
      row_lse[i] = t < shape.T ? lse[stat + t] * kLog2E : 0.0f;
      row_delta[i] = t < shape.T ? delta[stat + t] : 0.0f;
    }
  }

  float da[kOwnRows][D / kSide] = {}, db[kOwnRows][D / kSide] = {};
  for (int64_t column = 0; column < shape.T; column += kTile<D>) {
    __syncthreads();  // the columns before have been used
    load_tile<D>(kKeys ? q : k, column, kTile<D>, shape.T, d, a_columns);
    load_tile<D>(kKeys ? dy_rows : v, column, kTile<D>, shape.T, d, b_columns);
    if (threadIdx.x < kTile<D>) {
      const int64_t t = column + threadIdx.x;
      // Infinity makes p = 0 for columns that do not exist.
      column_lse[threadIdx.x] = t >= shape.T ? INFINITY : kKeys ? lse[stat + t] * kLog2E : 0.0f;
      column_delta[threadIdx.x] = kKeys && t < shape.T ? delta[stat + t] : 0.0f;
    }
    __syncthreads();
    float p[kOwnRows][kColumns], ds[kOwnRows][kColumns];
    multiply_transposed<D>(at, a_rows, a_columns, p);
    multiply_transposed<D>(at, b_rows, b_columns, ds);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const float lse_j = column_lse[at.x + kSide * j], delta_j = column_delta[at.x + kSide * j];
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
        p[i][j] = exp2f(p[i][j] * scale_log2 - (row_lse[i] + lse_j));
        ds[i][j] = p[i][j] * (ds[i][j] - (row_delta[i] + delta_j));
      }
    }
    if (kKeys) {
      store_columns(at, p, tile);
      __syncwarp();  // a warp reads the rows that it has written
      add_products<D, kTile<D>>(at, tile, b_columns, db);
      __syncwarp();
    }
    store_columns(at, ds, tile);
    __syncwarp();
    add_products<D, kTile<D>>(at, tile, a_columns, da);
  }

  const float scales[kOwnRows] = {scale, scale, scale, scale}, ones[kOwnRows] = {1.0f, 1.0f, 1.0f, 1.0f};
  store_rows<D>(at, da, scales, first, shape.T, d, stride, dqkv + head.part(shape, kKeys ? 1 : 0));
  if (kKeys) store_rows<D>(at, db, ones, first, shape.T, d, stride, dqkv + head.part(shape, 2));
}

float score_scale(const AttentionShape& shape) {
  check(shape.d() <= kMaxCudaHeadChannels, "attention: expected at most ", kMaxCudaHeadChannels,
        " channels per head on CUDA, got ", shape.d());
  return 1.0f / std::sqrt(static_cast<float>(shape.d()));
}

template <int D, class T>
void run_forward(Stream stream, const AttentionShape& shape, const T* qkv, T* y, float* lse) {
  const int tiles = tiles_of(shape, kRows);
  launch(attention_kernel<D, T>, blocks_of(shape, tiles), kThreads, kForwardFloats<D> * sizeof(float), stream, shape,
         tiles, score_scale(shape), qkv, y, lse);
}

template <int D, class T>
void run_grad(Stream stream, const AttentionShape& shape, const T* qkv, const float* lse, const float* delta,
              const T* dy, T* dqkv) {
  const int tiles = tiles_of(shape, kRows);
  const unsigned blocks = blocks_of(shape, tiles);
  for (const auto kernel : {attention_grad_kernel<D, false, T>, attention_grad_kernel<D, true, T>}) {
    launch(kernel, blocks, kThreads, kGradFloats<D> * sizeof(float), stream, shape, tiles, score_scale(shape), qkv, lse,
           delta, dy, dqkv);
  }
}

}  // namespace

template <class T>
void attention(Stream stream, const AttentionShape& shape, const T* qkv, T* y, float* lse) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (shape.d() == kMmaChannels) return attention_mma(stream, shape, score_scale(shape), qkv, y, lse);
  }
  const auto run = shape.d() <= 32 ? run_forward<32, T> : shape.d() <= 64 ? run_forward<64, T> : run_forward<128, T>;
  run(stream, shape, qkv, y, lse);
}

template <class T>
void attention_grad(Stream stream, const AttentionShape& shape, const T* qkv, const T* y, const float* lse, const T* dy,
                    T* dqkv) {
  const int64_t rows = shape.N * shape.T * shape.heads;
  auto* delta = static_cast<float*>(stream.scratch->get(static_cast<size_t>(rows) * sizeof(float)));
  launch(attention_delta_kernel<T>, blocks_for(rows, kDeltaRows), kThreads, 0, stream, shape, y, dy, delta);
  if constexpr (std::is_same_v<T, bf16>) {
    if (shape.d() == kMmaChannels) {
      return attention_grad_mma(stream, shape, score_scale(shape), qkv, lse, delta, dy, dqkv);
    }
  }
  const auto run = shape.d() <= 32 ? run_grad<32, T> : shape.d() <= 64 ? run_grad<64, T> : run_grad<128, T>;
  run(stream, shape, qkv, lse, delta, dy, dqkv);
}

template void attention(Stream, const AttentionShape&, const float*, float*, float*);
template void attention(Stream, const AttentionShape&, const bf16*, bf16*, float*);
template void attention_grad(Stream, const AttentionShape&, const float*, const float*, const float*, const float*,
                             float*);
template void attention_grad(Stream, const AttentionShape&, const bf16*, const bf16*, const float*, const bf16*, bf16*);

}  // namespace depthstill::cuda
