// bf16 operands of the tiled convolutions, as AMX and vdpbf16ps multiply them: lines of 32 channels, weight tiles with
// input pairs interleaved, and for weight gradients dy transposed (a row holds 32 pixels of one output) beside x with
// pixel pairs interleaved (a row holds two pixels of 16 channels). A tap at an odd pixel distance splits the pairs,
// hence the second copy of x, one pixel later.
#pragma once

#include "kernels/conv2d/conv2d_simd.h"

#if defined(__x86_64__)
#include <xmmintrin.h>

namespace depthstill::cpu::simd {

inline constexpr int kBf16LineChannels = 32;

// The instructions on bf16 that our kernels use.
struct Bf16Instructions {
  struct Mode {};
  // acc + a * b for both bf16 of each dword.
  DS_AVX512_BF16_INLINE static __m512 multiply_add(__m512 acc, __m512 a, __m512 b) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  // 32 floats, those of `low` first, to nearest even.
  DS_AVX512_BF16_INLINE static __m512i round(__m512 low, __m512 high) {
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  }
};

// The same bits without the instructions, so that everything around them can be tested where they are missing. Intel's
// manual on vdpbf16ps: an FMA of the upper halves, then one of the lower ones; each rounds to nearest even, takes
// operands below 2^-126 for zero and makes results below it zero, whatever the control register says.
struct Bf16Imitation {
  class Mode {
   public:
    Mode() : before_(_mm_getcsr()) { _mm_setcsr((before_ & ~kRounding) | kFlushResults | kFlushOperands); }
    ~Mode() { _mm_setcsr(before_); }
    Mode(const Mode&) = delete;
    Mode& operator=(const Mode&) = delete;

   private:
    static constexpr unsigned kFlushResults = 0x8000, kFlushOperands = 0x0040, kRounding = 0x6000;
    unsigned before_;
  };

  DS_AVX512_BF16_INLINE static __m512 upper(__m512 pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-0x10000)));
  }
  DS_AVX512_BF16_INLINE static __m512 lower(__m512 pairs) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
  }
  DS_AVX512_BF16_INLINE static __m512 multiply_add(__m512 acc, __m512 a, __m512 b) {
    return _mm512_fmadd_ps(lower(a), lower(b), _mm512_fmadd_ps(upper(a), upper(b), acc));
  }

  // 16 in the low halves of dwords. Operands below 2^-126 count as zero.
  DS_AVX512_BF16_INLINE static __m512i round(__m512 value) {
    const __m512i bits = _mm512_castps_si512(value), sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
    const __mmask16 tiny = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
    return round_bf16(_mm512_castsi512_ps(_mm512_mask_and_epi32(bits, tiny, bits, sign)));
  }
  DS_AVX512_BF16_INLINE static __m512i round(__m512 low, __m512 high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(round(low))),
                              _mm512_cvtepi32_epi16(round(high)), 1);
  }
};

// Dwords (even[i], odd[i]).
DS_AVX512_INLINE __m512i interleave(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

// Dwords (low[i], high[i]) of a vector of 32.
DS_AVX512_INLINE __m512i interleave_halves(__m512i halves) {
  alignas(64) static constexpr uint16_t kPairs[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kPairs), halves);
}

DS_AVX512 inline void pack_bf16_lines(const void* const* pixels, int64_t count, int64_t first, int channels,
                                      int64_t line_stride, std::byte* lines) {
  const int full = channels / kBf16LineChannels * kBf16LineChannels;
  const auto tail = static_cast<__mmask32>((uint64_t{1} << (channels - full)) - 1);
  for (int64_t i = 0; i < count; ++i, lines += kLineBytes) {
    const bf16* pixel = static_cast<const bf16*>(pixels[i]) + first;
    prefetch_pixel(pixels[std::min(i + kPrefetchPixels, count - 1)], first * int64_t{sizeof(bf16)},
                   channels * int{sizeof(bf16)});
    std::byte* line = lines;
    for (int c = 0; c < full; c += kBf16LineChannels, line += line_stride) {
      _mm512_store_si512(line, _mm512_loadu_si512(pixel + c));
    }
    if (tail) _mm512_store_si512(line, _mm512_maskz_loadu_epi16(tail, pixel + full));
  }
}

// Tile [16 input pairs][16 outputs][2].
template <class Math>
DS_AVX512_BF16 void pack_bf16_weights(const float* w, int64_t output_stride, int64_t input_stride, int outputs,
                                      int inputs, std::byte* tile) {
  __m512i rows[16];
  if (input_stride == 1) {
    const __mmask16 low = mask16(inputs), high = mask16(inputs - 16);
    for (int o = 0; o < 16; ++o) {
      const float* row = w + (o < outputs ? o : 0) * output_stride;
      const __m512 first = _mm512_maskz_loadu_ps(o < outputs ? low : __mmask16{0}, row);
      const __m512 second =
          high ? _mm512_maskz_loadu_ps(o < outputs ? high : __mmask16{0}, row + 16) : _mm512_setzero_ps();
      rows[o] = Math::round(first, second);
    }
    transpose16(rows);
  } else {
    const __mmask16 mask = mask16(outputs);
    for (int j = 0; j < 16; ++j) {
      const int even = 2 * j, odd = 2 * j + 1;
      rows[j] = interleave_halves(Math::round(
          _mm512_maskz_loadu_ps(even < inputs ? mask : __mmask16{0}, w + (even < inputs ? even : 0) * input_stride),
          _mm512_maskz_loadu_ps(odd < inputs ? mask : __mmask16{0}, w + (odd < inputs ? odd : 0) * input_stride)));
    }
  }
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * kLineBytes, rows[i]);
}

// 16 channels of two pixels, interleaved.
DS_AVX512_INLINE __m512i load_pair(const void* even, const void* odd, int64_t channel, __mmask16 mask) {
  return interleave(_mm256_maskz_loadu_epi16(mask, static_cast<const bf16*>(even) + channel),
                    _mm256_maskz_loadu_epi16(mask, static_cast<const bf16*>(odd) + channel));
}

// [tile][step][16 outputs][32 pixels]
DS_AVX512 inline void pack_bf16_dy(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride,
                                   std::byte* out) {
  for (int64_t k = 0; k < steps; ++k, pixels += kStepPixels, out += kTileBytes) {
    std::byte* tile = out;
    for (int c = 0; c < channels; c += 16, tile += tile_stride) {
      const __mmask16 mask = mask16(channels - c);
      __m512i rows[16];
      for (int j = 0; j < 16; ++j) rows[j] = load_pair(pixels[2 * j], pixels[2 * j + 1], c, mask);
      transpose16(rows);
      for (int j = 0; j < 16; ++j) _mm512_store_si512(tile + j * kLineBytes, rows[j]);
    }
  }
}

// [tile][pixel pair][16 channels][2], and at `odd`, unless that is 0, the same for pairs that begin at odd pixels.
DS_AVX512 inline void pack_bf16_x(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride,
                                  int64_t odd, std::byte* out) {
  for (int64_t pair = 0; pair < steps * kStepPixels / 2; ++pair, pixels += 2, out += kLineBytes) {
    std::byte* tile = out;
    for (int c = 0; c < channels; c += 16, tile += tile_stride) {
      const __mmask16 mask = mask16(channels - c);
      const auto* p0 = static_cast<const bf16*>(pixels[0]) + c;
      const auto* p1 = static_cast<const bf16*>(pixels[1]) + c;
      const auto* p2 = static_cast<const bf16*>(pixels[2]) + c;
      const __m512i x0 = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p0));
      const __m512i x1 = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p1));
      const __m512i x2 = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p2));
      _mm512_store_si512(tile, _mm512_or_si512(x0, _mm512_slli_epi32(x1, 16)));
      if (odd) _mm512_store_si512(tile + odd, _mm512_or_si512(x1, _mm512_slli_epi32(x2, 16)));
    }
  }
}

}  // namespace depthstill::cpu::simd
#endif
