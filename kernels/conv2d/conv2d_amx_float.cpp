// AMX kernels of the tiled convolutions for fp32 images. Every float is the sum of three bf16 numbers of 8 significant
// bits each, x = x0 + x1 + x2, without a remainder; of the nine products of two such sums, which AMX forms exactly and
// adds in fp32, the six of order 2^-16 and larger are kept:
//   x w = x0 w0 + x0 w1 + x1 w0 + x0 w2 + x1 w1 + x2 w0 + e,   |e| <= 2^-23 |x w|, random in sign
// which is the accuracy of fp32 multiply-adds at more than twice their rate (24 products per 14 tile loads). Parts
// below 2^-126 count as zero. Infinities, and magnitudes above 3.39e38, become NaN.
//
// A line holds the three parts of a pixel's 32 channels one after the other, a weight tile those of 16 outputs;
// otherwise everything is as in conv2d_amx.cpp.
#include "kernels/conv2d/conv2d_amx.h"
#include "kernels/core/amx.h"
#include "kernels/core/split_float.h"

namespace depthstill::cpu {

#if defined(__x86_64__) && defined(__linux__)
namespace {

using namespace amx;
using namespace simd;

constexpr int kProducts = 6;
constexpr int64_t kFloatLineBytes = kParts * kLineBytes, kFloatTileBytes = kParts * kTileBytes;

DS_AVX512_INLINE Split load_split(const float* p, __mmask16 mask) { return split(_mm512_maskz_loadu_ps(mask, p)); }

DS_AVX512 void pack_lines(const void* const* pixels, int64_t count, int64_t first, int channels, int64_t line_stride,
                          std::byte* lines) {
  for (int64_t i = 0; i < count; ++i, lines += kFloatLineBytes) {
    const float* pixel = static_cast<const float*>(pixels[i]) + first;
    prefetch_pixel(pixels[std::min(i + kPrefetchPixels, count - 1)], first * int64_t{sizeof(float)},
                   channels * int{sizeof(float)});
    std::byte* line = lines;
    for (int c = 0; c < channels; c += kLineChannels, line += line_stride) {
      const Split low = load_split(pixel + c, mask16(channels - c));
      const Split high = load_split(pixel + c + 16, mask16(channels - c - 16));
#pragma GCC unroll 3
      for (int k = 0; k < kParts; ++k) {
        _mm512_store_si512(line + k * kLineBytes, upper_halves(low.part[k], high.part[k]));
      }
    }
  }
}

// [part][16 input pairs][16 outputs][2]
DS_AVX512 void pack_weights(const float* w, int64_t output_stride, int64_t input_stride, int outputs, int inputs,
                            std::byte* tile) {
  __m512i rows[kParts][16];
  if (input_stride == 1) {
    const __mmask16 low_mask = mask16(inputs), high_mask = mask16(inputs - 16);
    for (int o = 0; o < 16; ++o) {
      const bool used = o < outputs;
      const float* row = w + (used ? o : 0) * output_stride;
      const Split low = load_split(row, used ? low_mask : __mmask16{0});
      const Split high = load_split(row + 16, used ? high_mask : __mmask16{0});
#pragma GCC unroll 3
      for (int k = 0; k < kParts; ++k) rows[k][o] = upper_halves(low.part[k], high.part[k]);
    }
    for (auto& part : rows) transpose16(part);
  } else {
    const __mmask16 mask = mask16(outputs);
    for (int j = 0; j < 16; ++j) {
      const bool use_even = 2 * j < inputs, use_odd = 2 * j + 1 < inputs;
      const Split even = load_split(w + (use_even ? 2 * j : 0) * input_stride, use_even ? mask : __mmask16{0});
      const Split odd = load_split(w + (use_odd ? 2 * j + 1 : 0) * input_stride, use_odd ? mask : __mmask16{0});
#pragma GCC unroll 3
      for (int k = 0; k < kParts; ++k) rows[k][j] = interleave_upper(even.part[k], odd.part[k]);
    }
  }
  for (const auto& part : rows) {
    for (int i = 0; i < 16; ++i, tile += kLineBytes) _mm512_store_si512(tile, part[i]);
  }
}

// `part` of the rows of A, in tiles 4 and 5; of the columns of B, in tiles 6 and 7.
template <int rows, int64_t stride, int64_t part_stride>
DS_AMX_INLINE void load_a(const Operand& a, int part) {
  _tile_loadd(4, a.first + part * part_stride, stride);
  if constexpr (rows == 2) _tile_loadd(5, a.second + part * part_stride, stride);
}
template <int columns, int64_t stride, int64_t part_stride>
DS_AMX_INLINE void load_b(const Operand& b, int part) {
  _tile_loadd(6, b.first + part * part_stride, stride);
  if constexpr (columns == 2) _tile_loadd(7, b.second + part * part_stride, stride);
}

template <int rows, int columns>
DS_AMX_INLINE void multiply_parts() {
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (columns == 2) _tile_dpbf16ps(1, 4, 7);
  if constexpr (rows == 2) _tile_dpbf16ps(2, 5, 6);
  if constexpr (rows == 2 && columns == 2) _tile_dpbf16ps(3, 5, 7);
}

// The six products, in an order that loads each part once, but for x1.
template <int rows, int columns, int64_t a_stride, int64_t a_part, int64_t b_stride, int64_t b_part>
DS_AMX_INLINE void step(const Operand& a, const Operand& b) {
  load_b<columns, b_stride, b_part>(b, 0);
  load_a<rows, a_stride, a_part>(a, 2);
  multiply_parts<rows, columns>();
  load_a<rows, a_stride, a_part>(a, 1);
  multiply_parts<rows, columns>();
  load_a<rows, a_stride, a_part>(a, 0);
  multiply_parts<rows, columns>();
  load_b<columns, b_stride, b_part>(b, 2);
  multiply_parts<rows, columns>();
  load_b<columns, b_stride, b_part>(b, 1);
  multiply_parts<rows, columns>();
  load_a<rows, a_stride, a_part>(a, 1);
  multiply_parts<rows, columns>();
}

struct SplitFormat {
  static constexpr int64_t kLine = kFloatLineBytes, kTile = kFloatTileBytes;

  template <int rows, int columns>
  DS_AMX_INLINE static void data_step(const Operand& lines, const Operand& weights) {
    step<rows, columns, kFloatLineBytes, kLineBytes, kLineBytes, kTileBytes>(lines, weights);
  }
  template <int rows, int columns>
  DS_AMX_INLINE static void weight_step(const Operand& dy, const Operand& x) {
    step<rows, columns, kLineBytes, kTileBytes, kFloatLineBytes, kLineBytes>(dy, x);
  }
};

// [tile][step][part][16 outputs][32 pixels]
DS_AVX512 void pack_dy(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, std::byte* out) {
  for (int64_t step = 0; step < steps; ++step, pixels += kStepPixels, out += kFloatTileBytes) {
    std::byte* tile = out;
    for (int c = 0; c < channels; c += 16, tile += tile_stride) {
      const __mmask16 mask = mask16(channels - c);
      __m512i rows[kParts][16];
      for (int j = 0; j < 16; ++j) {
        const Split even = load_split(static_cast<const float*>(pixels[2 * j]) + c, mask);
        const Split odd = load_split(static_cast<const float*>(pixels[2 * j + 1]) + c, mask);
#pragma GCC unroll 3
        for (int k = 0; k < kParts; ++k) rows[k][j] = interleave_upper(even.part[k], odd.part[k]);
      }
      for (int k = 0; k < kParts; ++k) {
        transpose16(rows[k]);
        for (int j = 0; j < 16; ++j) _mm512_store_si512(tile + k * kTileBytes + j * kLineBytes, rows[k][j]);
      }
    }
  }
}

// [tile][pixel pair][part][16 channels][2], and at `odd`, unless that is 0, the same for pairs that begin at odd
// pixels.
DS_AVX512 void pack_x(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, int64_t odd,
                      std::byte* out) {
  std::byte* tile = out;
  for (int c = 0; c < channels; c += 16, tile += tile_stride) {
    const __mmask16 mask = mask16(channels - c);
    const int64_t count = steps * kStepPixels;
    std::byte* pair = tile;
    Split even = load_split(static_cast<const float*>(pixels[0]) + c, mask);
    for (int64_t i = 0; i < count; i += 2, pair += kFloatLineBytes) {
      const Split x1 = load_split(static_cast<const float*>(pixels[i + 1]) + c, mask);
      const Split x2 = load_split(static_cast<const float*>(pixels[i + 2]) + c, mask);
#pragma GCC unroll 3
      for (int k = 0; k < kParts; ++k) {
        _mm512_store_si512(pair + k * kLineBytes, interleave_upper(even.part[k], x1.part[k]));
        if (odd) _mm512_store_si512(pair + odd + k * kLineBytes, interleave_upper(x1.part[k], x2.part[k]));
      }
      even = x2;
    }
  }
}

constexpr TileKernels kKernels = {
    .name = "amx, floats in three parts",
    .line_channels = kLineChannels,
    .block_pixels = 32,
    .element_bytes = sizeof(float),
    .line_bytes = kFloatLineBytes,
    .tile_bytes = kFloatTileBytes,
    .pixels_per_line = 2,
    .step_bytes = kFloatTileBytes,
    .block_bytes = 76 << 10,
    .stream_weights = true,
    .begin = begin_tiles,
    .end = end_tiles,
    .pack_lines = pack_lines,
    .pack_weights = pack_weights,
    .multiply = amx::multiply<SplitFormat>,
    .store = store_block<float>,
    .pack_dy = pack_dy,
    .pack_x = pack_x,
    .multiply_weights = amx::multiply_weights<SplitFormat>,
    .burn = amx::burn<kProducts>,
};

}  // namespace

template <>
const TileKernels* amx_kernels<float>() {
  return amx_usable() ? &kKernels : nullptr;
}
#else
template <>
const TileKernels* amx_kernels<float>() {
  return nullptr;
}
#endif

}  // namespace depthstill::cpu
