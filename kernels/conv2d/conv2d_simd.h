// AVX-512 pieces shared by the convolution kernels. Only files that check the processor at run time include them: the
// functions carry their own target attribute, so the rest of the program keeps the build's baseline.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/conv2d/conv2d_tiles.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands inside its own intrinsics for uninitialised variables.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define DS_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define DS_AVX512_INLINE DS_AVX512 __attribute__((always_inline)) inline
// Instructions on bf16 come from intrinsics alone: what does not call them runs without AVX-512 BF16, too.
#define DS_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define DS_AVX512_BF16_INLINE DS_AVX512_BF16 __attribute__((always_inline)) inline

namespace depthstill::cpu::simd {

DS_AVX512_INLINE __mmask16 mask16(int64_t count) {
  return count >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << std::max<int64_t>(count, 0)) - 1u);
}

// 16 elements as floats; those outside the mask are zero and not read.
DS_AVX512_INLINE __m512 load(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
DS_AVX512_INLINE __m512 load(const bf16* p, __mmask16 mask) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}
DS_AVX512_INLINE void store(float* p, __mmask16 mask, __m512 value) { _mm512_mask_storeu_ps(p, mask, value); }

// Rounds to nearest even; NaN stays NaN. The 16 results are the low halves of dwords.
DS_AVX512_INLINE __m512i round_bf16(__m512 value) {
  const __m512i u = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  return _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), quiet);
}
DS_AVX512_INLINE void store(bf16* p, __mmask16 mask, __m512 value) {
  _mm256_mask_storeu_epi16(p, mask, _mm512_cvtepi32_epi16(round_bf16(value)));
}

// Packing walks through memory in pieces of one pixel, which the hardware prefetchers follow badly.
inline constexpr int64_t kPrefetchPixels = 12;
inline void prefetch_pixel(const void* pixel, int64_t offset, int bytes) {
  const auto* begin = static_cast<const std::byte*>(pixel) + offset;
  for (int i = 0; i < bytes; i += 64) __builtin_prefetch(begin + i);
}

// Transposes a 16 x 16 matrix of dwords held in 16 registers.
DS_AVX512_INLINE void transpose16(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// activate() of kernels/activation.h on 16 values; max and min return their second operand for NaN, so NaN passes.
template <Activation kind>
DS_AVX512_INLINE __m512 activate16(__m512 v) {
  if constexpr (kind == Activation::kRelu || kind == Activation::kRelu6) v = _mm512_max_ps(_mm512_setzero_ps(), v);
  if constexpr (kind == Activation::kRelu6) v = _mm512_min_ps(_mm512_set1_ps(6.0f), v);
  if constexpr (kind == Activation::kSigmoid) {
    alignas(64) float values[16];
    _mm512_store_ps(values, v);
    for (float& value : values) value = activate<Activation::kSigmoid>(value);
    v = _mm512_load_ps(values);
  }
  return v;
}

template <class T, Activation kind>
DS_AVX512 void store_pixels(const StoreBlock& b) {
  const __mmask16 low = mask16(b.outputs), high = mask16(b.outputs - 16);
  const __m512 bias0 = b.bias ? _mm512_maskz_loadu_ps(low, b.bias) : _mm512_setzero_ps();
  const __m512 bias1 = b.bias ? _mm512_maskz_loadu_ps(high, b.bias + 16) : _mm512_setzero_ps();
  const float* acc = b.acc;
  for (int i = 0; i < b.count; ++i, acc += kPairOutputs) {
    if (!b.out[i]) continue;
    T* y = static_cast<T*>(b.out[i]) + b.first_output;
    store(y, low, activate16<kind>(_mm512_add_ps(_mm512_loadu_ps(acc), bias0)));
    if (high) store(y + 16, high, activate16<kind>(_mm512_add_ps(_mm512_loadu_ps(acc + 16), bias1)));
  }
}

template <class T>
void store_block(const StoreBlock& b) {
  visit(b.act, [&]<Activation kind>() { store_pixels<T, kind>(b); });
}

}  // namespace depthstill::cpu::simd
#endif
