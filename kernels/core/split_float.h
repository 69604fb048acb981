// Floats as sums of three bf16 numbers, for products on AMX in fp32 accuracy (conv2d_amx_float.cpp).
#pragma once

#if defined(__x86_64__)
#include "kernels/conv2d/conv2d_simd.h"

namespace depthstill::cpu::simd {

inline constexpr int kParts = 3;

// The parts of 16 floats, as bf16 in the upper halves of dwords.
struct Split {
  __m512i part[kParts];
};

// Rounds by adding half a unit, which wraps for NaNs with a full payload; but then the last part is NaN.
DS_AVX512_INLINE Split split(__m512 x) {
  const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  Split s;
  s.part[0] = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), upper);
  const __m512 first = _mm512_castsi512_ps(s.part[0]);
  const __m512 rest = _mm512_sub_ps(x, first);
  s.part[1] = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(rest), half), upper);
  s.part[2] = _mm512_castps_si512(_mm512_sub_ps(rest, _mm512_castsi512_ps(s.part[1])));
  return s;
}

// The upper halves of 32 dwords in order.
DS_AVX512_INLINE __m512i upper_halves(__m512i low, __m512i high) {
  alignas(64) static constexpr uint16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                    33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16(low, _mm512_load_si512(kOdd), high);
}

// Dwords (even[i], odd[i]) of upper halves.
DS_AVX512_INLINE __m512i interleave_upper(__m512i even, __m512i odd) {
  constexpr __mmask32 kOdd = 0xaaaaaaaau;
  return _mm512_mask_mov_epi16(_mm512_srli_epi32(even, 16), kOdd, odd);
}

}  // namespace depthstill::cpu::simd
#endif
