// AVX2 pieces shared by the kernels of convolutions and of attention. Only files that check the processor at run time
// include them: the functions carry their own target attribute, so the rest of the program keeps the build's baseline.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/conv2d/conv2d_tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define DS_AVX2 __attribute__((target("avx2,fma")))
#define DS_AVX2_INLINE DS_AVX2 __attribute__((always_inline)) inline

namespace depthstill::cpu::avx2 {

inline constexpr int kVector = 8;

// The first `count` of 8 elements, the others zero and not read.
DS_AVX2_INLINE __m256i first_of_8(int64_t count) {
  const int n = static_cast<int>(std::clamp<int64_t>(count, 0, kVector));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
DS_AVX2_INLINE __m256 load(const float* p, int64_t count) {
  return count >= kVector ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_of_8(count));
}
DS_AVX2_INLINE __m256 load(const bf16* p, int64_t count) {
  __m128i halves = _mm_setzero_si128();
  if (count >= kVector)
    halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  else if (count > 0)
    std::memcpy(&halves, p, static_cast<size_t>(count) * sizeof(bf16));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

DS_AVX2_INLINE void store(float* p, int64_t count, __m256 value) {
  if (count >= kVector)
    _mm256_storeu_ps(p, value);
  else
    _mm256_maskstore_ps(p, first_of_8(count), value);
}
// Rounds to nearest even; NaN stays NaN.
DS_AVX2_INLINE void store(bf16* p, int64_t count, __m256 value) {
  const __m256i u = _mm256_castps_si256(value), upper = _mm256_srli_epi32(u, 16);
  const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, is_nan);
  const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  if (count >= kVector)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
  else if (count > 0)
    std::memcpy(p, &halves, static_cast<size_t>(count) * sizeof(bf16));
}

// Transposes an 8 x 8 matrix of floats held in 8 registers.
DS_AVX2_INLINE void transpose8(__m256 (&r)[8]) {
  __m256 t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], _MM_SHUFFLE(1, 0, 1, 0));
      u[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], _MM_SHUFFLE(3, 2, 3, 2));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

}  // namespace depthstill::cpu::avx2
#endif
