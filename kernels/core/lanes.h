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
using LaneInts = int32_t __attribute__((vector_size(4 * kLanes)));  // comparisons give 0 or -1
using LaneBits = uint32_t __attribute__((vector_size(4 * kLanes)));

namespace detail {
using LaneBytes = uint8_t __attribute__((vector_size(kLanes)));
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
  return std::bit_cast<Lanes>(std::bit_cast<LaneBits>(words) << 16);
#else
  return std::bit_cast<Lanes>(__builtin_convertvector(halves, LaneBits) << 16);
#endif
}

inline LaneInts load_lanes(const int32_t* x) {
  LaneInts lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}
inline LaneInts load_lanes(const uint8_t* x) {
  detail::LaneBytes bytes;
  std::memcpy(&bytes, x, sizeof(bytes));
  return __builtin_convertvector(bytes, LaneInts);
}

inline void store_lanes(float* y, Lanes lanes) { std::memcpy(y, &lanes, sizeof(lanes)); }
// The same rounding as bf16(float); the instruction differs only in that it flushes values below 2^-126 to 0.
inline void store_lanes(bf16* y, Lanes lanes) {
#if defined(__AVX512BF16__)
  const __m256bh halves = _mm512_cvtneps_pbh(std::bit_cast<__m512>(lanes));
#else
  const auto u = std::bit_cast<LaneBits>(lanes);
  const LaneBits rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const LaneBits nan = (u >> 16) | 0x40u;
  const auto is_nan = std::bit_cast<LaneBits>((u & 0x7fffffffu) > 0x7f800000u);
  const auto halves = __builtin_convertvector((nan & is_nan) | (rounded & ~is_nan), detail::LaneHalves);
#endif
  std::memcpy(y, &halves, sizeof(halves));
}

inline Lanes lanes_of(float v) { return v - Lanes{}; }
inline LaneInts lane_numbers() {
  LaneInts lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes;
}
// Mask of the first `count` lanes.
inline LaneInts first_lanes(int64_t count) { return lane_numbers() < static_cast<int32_t>(count); }

// The first `count` lanes alone are in memory, at most kLanes; the others are 0 or `rest`.
inline Lanes load_first(const float* x, int64_t count) {
  if (count == kLanes) return load_lanes(x);
  Lanes lanes{};
  std::memcpy(&lanes, x, static_cast<size_t>(count) * sizeof(float));
  return lanes;
}
inline LaneInts load_first(const uint8_t* x, int64_t count, uint8_t rest) {
  if (count == kLanes) return load_lanes(x);
  uint8_t bytes[kLanes];
  std::memset(bytes, rest, kLanes);
  std::memcpy(bytes, x, static_cast<size_t>(count));
  return load_lanes(bytes);
}
inline void store_first(uint8_t* y, int64_t count, LaneInts lanes) {
  const auto bytes = __builtin_convertvector(lanes, detail::LaneBytes);
  std::memcpy(y, &bytes, static_cast<size_t>(count));
}
inline void store_first(float* y, int64_t count, Lanes lanes) {
  if (count == kLanes) return store_lanes(y, lanes);
  std::memcpy(y, &lanes, static_cast<size_t>(count) * sizeof(float));
}

// v where the mask is -1, else 0.
inline Lanes where(LaneInts mask, Lanes v) { return std::bit_cast<Lanes>(std::bit_cast<LaneInts>(v) & mask); }
inline Lanes magnitude(Lanes v) { return std::bit_cast<Lanes>(std::bit_cast<LaneInts>(v) & 0x7fffffff); }
inline LaneInts finite_lanes(Lanes v) { return (std::bit_cast<LaneInts>(v) & 0x7f800000) != 0x7f800000; }
// 1, -1, or v where that is 0 or NaN.
inline Lanes sign_of(Lanes v) { return v > 0.0f ? lanes_of(1.0f) : v < 0.0f ? lanes_of(-1.0f) : v; }
inline double sum_of(Lanes v) {
  double sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += static_cast<double>(v[i]);
  return sum;
}

}  // namespace depthstill
