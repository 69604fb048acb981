// AMX kernels of the tiled convolutions, bf16 images: a step of four tile loads (16 lines each) feeds four products of
// 16 x 16 x 32.
// Data: rows of A are the lines of 16 consecutive flat pixels, B is a weight tile with input pairs interleaved.
// Weights: A is dy transposed (a row holds 32 pixels of one output), B is x with pixel pairs interleaved (a row holds
// two pixels of 16 channels). A tap at an odd pixel distance splits the pairs, hence the second copy of x, one pixel
// later.
#include "kernels/conv2d/conv2d_amx.h"

#include "kernels/core/amx.h"

namespace depthstill::cpu {

#if defined(__x86_64__) && defined(__linux__)
namespace {

using namespace amx;
using namespace simd;

DS_AVX512 void pack_lines(const void* const* pixels, int64_t count, int64_t first, int channels, int64_t line_stride,
                          std::byte* lines) {
  const int full = channels / kLineChannels * kLineChannels;
  const auto tail = static_cast<__mmask32>((uint64_t{1} << (channels - full)) - 1);
  for (int64_t i = 0; i < count; ++i, lines += kLineBytes) {
    const bf16* pixel = static_cast<const bf16*>(pixels[i]) + first;
    prefetch_pixel(pixels[std::min(i + kPrefetchPixels, count - 1)], first * int64_t{sizeof(bf16)},
                   channels * int{sizeof(bf16)});
    std::byte* line = lines;
    for (int c = 0; c < full; c += kLineChannels, line += line_stride) {
      _mm512_store_si512(line, _mm512_loadu_si512(pixel + c));
    }
    if (tail) _mm512_store_si512(line, _mm512_maskz_loadu_epi16(tail, pixel + full));
  }
}

DS_AMX_INLINE __m256i load_rounded(const float* p, __mmask16 mask) {
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, p)));
}

// Dwords (even[i], odd[i]).
DS_AVX512_INLINE __m512i interleave(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

// Tile [16 input pairs][16 outputs][2].
DS_AMX void pack_weights(const float* w, int64_t output_stride, int64_t input_stride, int outputs, int inputs,
                         std::byte* tile) {
  __m512i rows[16];
  if (input_stride == 1) {
    const __mmask16 low = mask16(inputs), high = mask16(inputs - 16);
    for (int o = 0; o < 16; ++o) {
      const float* row = w + (o < outputs ? o : 0) * output_stride;
      const __m512 first = _mm512_maskz_loadu_ps(o < outputs ? low : __mmask16{0}, row);
      const __m512 second =
          high ? _mm512_maskz_loadu_ps(o < outputs ? high : __mmask16{0}, row + 16) : _mm512_setzero_ps();
      rows[o] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
    }
    transpose16(rows);
  } else {
    const __mmask16 mask = mask16(outputs);
    for (int j = 0; j < 16; ++j) {
      const int even = 2 * j, odd = 2 * j + 1;
      rows[j] =
          interleave(load_rounded(w + (even < inputs ? even : 0) * input_stride, even < inputs ? mask : __mmask16{0}),
                     load_rounded(w + (odd < inputs ? odd : 0) * input_stride, odd < inputs ? mask : __mmask16{0}));
    }
  }
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * kLineBytes, rows[i]);
}

struct Bf16Format {
  static constexpr int64_t kLine = kLineBytes, kTile = kTileBytes;

  template <int rows, int columns>
  DS_AMX_INLINE static void data_step(const Operand& a, const Operand& b) {
    _tile_loadd(6, b.first, kLineBytes);
    _tile_loadd(4, a.first, kLineBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (columns == 2) {
      _tile_loadd(7, b.second, kLineBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (rows == 2) {
      _tile_loadd(5, a.second, kLineBytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (columns == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  template <int rows, int columns>
  DS_AMX_INLINE static void weight_step(const Operand& dy, const Operand& x) {
    data_step<rows, columns>(dy, x);
  }
};

// 16 channels of two pixels, interleaved.
DS_AVX512_INLINE __m512i load_pair(const void* even, const void* odd, int64_t channel, __mmask16 mask) {
  return interleave(_mm256_maskz_loadu_epi16(mask, static_cast<const bf16*>(even) + channel),
                    _mm256_maskz_loadu_epi16(mask, static_cast<const bf16*>(odd) + channel));
}

// [tile][step][16 outputs][32 pixels]
DS_AVX512 void pack_dy(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, std::byte* out) {
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
DS_AVX512 void pack_x(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, int64_t odd,
                      std::byte* out) {
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

constexpr TileKernels kKernels = {
    .name = "amx",
    .line_channels = kLineChannels,
    .block_pixels = 32,
    .element_bytes = sizeof(bf16),
    .line_bytes = kLineBytes,
    .tile_bytes = kTileBytes,
    .pixels_per_line = 2,
    .step_bytes = kTileBytes,
    .block_bytes = 32 << 10,
    .stream_weights = true,
    .begin = begin_tiles,
    .end = end_tiles,
    .pack_lines = pack_lines,
    .pack_weights = pack_weights,
    .multiply = amx::multiply<Bf16Format>,
    .store = store_block<bf16>,
    .pack_dy = pack_dy,
    .pack_x = pack_x,
    .multiply_weights = amx::multiply_weights<Bf16Format>,
};

}  // namespace

template <>
const TileKernels* amx_kernels<bf16>() {
  return amx_usable() ? &kKernels : nullptr;
}
#else
template <>
const TileKernels* amx_kernels<bf16>() {
  return nullptr;
}
#endif

template <class T>
const TileKernels* tile_kernels() {
  const TileKernels* amx = amx_kernels<T>();
  return amx ? amx : avx512_kernels<T>();
}
template const TileKernels* tile_kernels<float>();
template const TileKernels* tile_kernels<bf16>();

}  // namespace depthstill::cpu
