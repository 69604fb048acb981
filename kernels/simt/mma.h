// Tensor core instructions in the emulator, from PTX's tables of which lane holds what. Every lane lays its operands
// open and waits, reads what it needs, and waits again.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/simt/simt.h"

namespace depthstill::simt {

// Calls read(`mine` of every lane of the warp), between two rendezvous.
template <class T, class Read>
void with_warp(const T& mine, Where where, const Read& read) {
  static T shared[32][32];  // values of all warps of a block
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  T(&warp)[32] = shared[thread / 32];
  warp[thread % 32] = mine;
  __syncwarp(0xffffffffu, where);
  read(warp);
  __syncwarp(0xffffffffu, where);
}

inline float bf16_half(uint32_t word, int half) { return std::bit_cast<float>(half ? word & 0xffff0000u : word << 16); }

inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         Where where = Where::current()) {
  struct Operands {
    uint32_t a[4], b[2];
  };
  with_warp(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}}, where, [&](const Operands(&warp)[32]) {
    const int g = lane() / 4, t = lane() % 4;
    for (int i = 0; i < 4; ++i) {
      const int column = 2 * t + i % 2, lower = i / 2;  // row g, or g + 8
      double sum = 0;
      for (int k = 0; k < 16; ++k) {
        const int holder = k % 8 / 2, upper = k / 8;
        sum += static_cast<double>(bf16_half(warp[4 * g + holder].a[lower + 2 * upper], k % 2)) *
               static_cast<double>(bf16_half(warp[4 * column + holder].b[upper], k % 2));
      }
      c[i] = static_cast<float>(static_cast<double>(c[i]) + sum);
    }
  });
}

inline void ldmatrix_x4_trans(const void* row, uint32_t (&words)[4], Where where = Where::current()) {
  with_warp(row, where, [&](const void* const(&rows)[32]) {
    const int g = lane() / 4, t = lane() % 4;
    for (int i = 0; i < 4; ++i) {
      uint16_t pair[2];
      for (int k = 0; k < 2; ++k) pair[k] = static_cast<const uint16_t*>(rows[8 * i + 2 * t + k])[g];
      words[i] = static_cast<uint32_t>(pair[0]) | static_cast<uint32_t>(pair[1]) << 16;
    }
  });
}

}  // namespace depthstill::simt
