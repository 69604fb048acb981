// Floats of one vector register, for CPU loops whose accumulators the compiler would otherwise spill. The vector
// extension of GCC and Clang: any target compiles it. Wider than the registers of AVX2, vectors would lie in memory.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/core/bf16.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace depthstill {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#else
inline constexpr int kLanes = 8;
#endif
using Lanes = float __attribute__((vector_size(4 * kLanes)));

namespace detail {
using LaneBits = uint32_t __attribute__((vector_size(4 * kLanes)));
using LaneHalves = uint16_t __attribute__((vector_size(2 * kLanes)));
}  // namespace detail

inline Lanes load_lanes(const float* x) {
  Lanes lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}
inline Lanes load_lanes(const bf16* x) {
  detail::LaneHalves halves;
  std::memcpy(&halves, x, sizeof(halves));
#if defined(__AVX512F__)  // one instruction, for which GCC 12 takes six; it also warns of the form without a mask
  const __m512i words = _mm512_maskz_cvtepu16_epi32(0xffff, std::bit_cast<__m256i>(halves));
  return std::bit_cast<Lanes>(std::bit_cast<detail::LaneBits>(words) << 16);
#else
  return std::bit_cast<Lanes>(__builtin_convertvector(halves, detail::LaneBits) << 16);
#endif
}

inline void store_lanes(float* y, Lanes lanes) { std::memcpy(y, &lanes, sizeof(lanes)); }
// The same rounding as bf16(float); the instruction differs only in that it flushes values below 2^-126 to 0.
inline void store_lanes(bf16* y, Lanes lanes) {
#if defined(__AVX512BF16__)
  const __m256bh halves = _mm512_cvtneps_pbh(std::bit_cast<__m512>(lanes));
#else
  const auto u = std::bit_cast<detail::LaneBits>(lanes);
  const detail::LaneBits rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const detail::LaneBits nan = (u >> 16) | 0x40u;
  const auto is_nan = std::bit_cast<detail::LaneBits>((u & 0x7fffffffu) > 0x7f800000u);
  const auto halves = __builtin_convertvector((nan & is_nan) | (rounded & ~is_nan), detail::LaneHalves);
#endif
  std::memcpy(y, &halves, sizeof(halves));
}

}  // namespace depthstill
