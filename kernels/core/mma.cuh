// Tensor cores, as a warp sees them: products of 16 x 16 and 16 x 8 bf16 tiles with fp32 accumulators (mma.sync, sm_80
// and later). With g = lane / 4 and t = lane % 4, a lane holds, two neighbours in a 32-bit word (the lower half first):
//   A 16 x 16  a[0] = A[g][2t..]   a[1] = A[g+8][2t..]   a[2] = A[g][2t+8..]   a[3] = A[g+8][2t+8..]
//   B 16 x 8   b[0] = B[2t..][g]   b[1] = B[2t+8..][g]
//   C 16 x 8   c[0], c[1] = C[g][2t], C[g][2t+1]   c[2], c[3] = C[g+8][2t], C[g+8][2t+1]
// So C, rounded to bf16, is A of the next product: two of them side by side are its 16 columns. All lanes must call.
#pragma once

#include <cstdint>

#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"

#if !defined(__CUDACC__)
#include "kernels/simt/mma.h"
#endif

namespace depthstill {

// 16 bytes: 8 bf16 numbers in 4 words.
struct alignas(16) Chunk {
  uint32_t word[4];
};

// Returns where `chunk` of `row` lies in a tile of rows of kRowChunks chunks, so that neither of the two ways in which
// warps read it meets a bank twice: 4 neighbouring chunks of 2 rows (8 lanes' 16-byte loads), a chunk of 8 rows
// (load_transposed).
template <int kRowChunks>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  static_assert(kRowChunks % 8 == 0);
  return row * kRowChunks + (chunk ^ ((row & 1) << 2 | (row >> 1 & 3)));
}

// c += a * b. Volatile: all lanes must reach it, so it must not move into a branch that alone uses its result.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  simt::mma_m16n8k16(c, a, b0, b1);
#endif
}

// Four 8 x 8 tiles in shared memory whose rows are chunks: lane l passes the address of row l % 8 of tile l / 8.
// words[i] receives of tile i the elements [2t][g] (lower half) and [2t+1][g]: B of a product over the tile's rows.
__device__ __forceinline__ void load_transposed(const Chunk* row, uint32_t (&words)[4]) {
#if defined(__CUDACC__)
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
#else
  simt::ldmatrix_x4_trans(row, words);
#endif
}

// c += (16 rows with chunks low: row g, high: row g + 8) * (8 rows with chunk b), over the 32 numbers of the chunks of
// a row's 4 lanes: in an order of its own, so that a lane's operands of two products are one 16-byte chunk.
__device__ __forceinline__ void multiply_chunks(float (&c)[4], const Chunk& low, const Chunk& high, const Chunk& b) {
  multiply_add(c, {low.word[0], high.word[0], low.word[1], high.word[1]}, b.word[0], b.word[1]);
  multiply_add(c, {low.word[2], high.word[2], low.word[3], high.word[3]}, b.word[2], b.word[3]);
}

// out (16 x kC) += a (16 x 16) * 16 rows of `tile` (rows, kC), swizzled, from first_row on.
template <int kC>
__device__ __forceinline__ void multiply_by_rows(float (&out)[kC / 8][4], const uint32_t (&a)[4], const Chunk* tile,
                                                 int first_row, int lane) {
  const int row = first_row + lane % 16, half = lane / 16;
#pragma unroll
  for (int q = 0; q < kC / 16; ++q) {
    uint32_t b[4];
    load_transposed(tile + swizzled<kC / 8>(row, 2 * q + half), b);
    multiply_add(out[2 * q], a, b[0], b[1]);
    multiply_add(out[2 * q + 1], a, b[2], b[3]);
  }
}

}  // namespace depthstill
