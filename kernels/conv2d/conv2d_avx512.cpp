// AVX-512 kernels of the tiled convolutions: fp32 arithmetic on lines of 16 floats, for fp32 and for bf16 images (which
// are widened when packed: faster than vdpbf16ps on the processors that we could measure).
// Data: 14 pixels x 2 vectors of outputs = 28 accumulators, 2 weight vectors and a broadcast fill the 32 registers; 16
// loads per 28 multiply-adds leave the two arithmetic ports as the bound.
// Weights: 8 outputs (broadcast) x 2 vectors of channels = 16 accumulators, 10 loads per 16 multiply-adds.
#include "kernels/conv2d/conv2d_simd.h"

namespace depthstill::cpu {

#if defined(__x86_64__)
namespace {

using namespace simd;

constexpr int kPixels = 14;
constexpr int kLineFloats = 16;

template <class T>
DS_AVX512 void pack_lines(const void* const* pixels, int64_t count, int64_t first, int channels, int64_t line_stride,
                          std::byte* lines) {
  for (int64_t i = 0; i < count; ++i, lines += kLineBytes) {
    const T* pixel = static_cast<const T*>(pixels[i]) + first;
    prefetch_pixel(pixels[std::min(i + kPrefetchPixels, count - 1)], first * int64_t{sizeof(T)},
                   channels * int{sizeof(T)});
    std::byte* line = lines;
    for (int c = 0; c < channels; c += kLineFloats, line += line_stride) {
      _mm512_store_ps(line, load(pixel + c, mask16(channels - c)));
    }
  }
}

// Tile [16 inputs][16 outputs].
DS_AVX512 void pack_weights(const float* w, int64_t output_stride, int64_t input_stride, int outputs, int inputs,
                            std::byte* tile) {
  const __mmask16 output_mask = mask16(outputs), input_mask = mask16(inputs);
  __m512i rows[16];
  if (input_stride == 1) {
    for (int o = 0; o < 16; ++o) {
      rows[o] =
          _mm512_maskz_loadu_epi32(o < outputs ? input_mask : __mmask16{0}, o < outputs ? w + o * output_stride : w);
    }
    transpose16(rows);
  } else {
    for (int c = 0; c < 16; ++c) {
      rows[c] =
          _mm512_maskz_loadu_epi32(c < inputs ? output_mask : __mmask16{0}, c < inputs ? w + c * input_stride : w);
    }
  }
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * kLineBytes, rows[i]);
}

template <int tiles>
DS_AVX512 void multiply_tiles(const DataBlock& b) {
  __m512 acc[kPixels][tiles];
#pragma GCC unroll 14
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 2
    for (int t = 0; t < tiles; ++t) {
      acc[i][t] = b.first ? _mm512_setzero_ps() : _mm512_loadu_ps(b.acc + i * kPairOutputs + t * kTileOutputs);
    }
  }
  const std::byte* weights = b.weights;
  for (int r = 0; r < b.R; ++r) {
    for (int s = 0; s < b.S; ++s) {
      const std::byte* line = b.lines + r * b.row_stride + s * b.column_stride;
      for (int l = 0; l < b.line_count; ++l, line += b.line_stride, weights += 2 * kTileBytes) {
        const auto* a = reinterpret_cast<const float*>(line);
        const auto* w = reinterpret_cast<const float*>(weights);
#pragma GCC unroll 2
        for (int k = 0; k < kLineFloats; ++k, ++a, w += kTileOutputs) {
          __m512 wk[tiles];
#pragma GCC unroll 2
          for (int t = 0; t < tiles; ++t) wk[t] = _mm512_load_ps(w + t * (kTileBytes / 4));
#pragma GCC unroll 14
          for (int i = 0; i < kPixels; ++i) {
            const __m512 ai = _mm512_set1_ps(a[i * kLineFloats]);
#pragma GCC unroll 2
            for (int t = 0; t < tiles; ++t) acc[i][t] = _mm512_fmadd_ps(ai, wk[t], acc[i][t]);
          }
        }
      }
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 2
    for (int t = 0; t < tiles; ++t) _mm512_storeu_ps(b.acc + i * kPairOutputs + t * kTileOutputs, acc[i][t]);
  }
}

void multiply(const DataBlock& b) {
  if (b.tiles == 2) {
    multiply_tiles<2>(b);
  } else {
    multiply_tiles<1>(b);
  }
}

// Tiles of 16 channels, a line per pixel: the layout of x and of dy alike.
template <class T>
DS_AVX512 void pack_tiles(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, std::byte* out) {
  pack_lines<T>(pixels, steps * kStepPixels, 0, channels, tile_stride, out);
}
template <class T>
void pack_x(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, int64_t, std::byte* out) {
  pack_tiles<T>(pixels, steps, channels, tile_stride, out);
}

// 8 outputs from `first` of one tile of dy, x_tiles x 16 channels.
template <int x_tiles>
DS_AVX512 void multiply_outputs(const WeightBlock& b, const std::byte* dy_tile, int first, float* acc_rows) {
  constexpr int kOutputs = 8;
  __m512 acc[kOutputs][x_tiles];
#pragma GCC unroll 8
  for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 2
    for (int t = 0; t < x_tiles; ++t) {
      acc[o][t] = b.first ? _mm512_setzero_ps() : _mm512_loadu_ps(acc_rows + o * 32 + t * 16);
    }
  }
  const float* dy = reinterpret_cast<const float*>(dy_tile) + first;
  const auto* x0 = reinterpret_cast<const float*>(b.x[0]);
  const auto* x1 = reinterpret_cast<const float*>(b.x[1]);
  const int64_t count = b.steps * kStepPixels * kLineFloats;
#pragma GCC unroll 2
  for (int64_t f = 0; f < count; f += kLineFloats) {
    __m512 x[x_tiles];
    x[0] = _mm512_load_ps(x0 + f);
    if constexpr (x_tiles == 2) x[1] = _mm512_load_ps(x1 + f);
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
      const __m512 d = _mm512_set1_ps(dy[f + o]);
#pragma GCC unroll 2
      for (int t = 0; t < x_tiles; ++t) acc[o][t] = _mm512_fmadd_ps(d, x[t], acc[o][t]);
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 2
    for (int t = 0; t < x_tiles; ++t) _mm512_storeu_ps(acc_rows + o * 32 + t * 16, acc[o][t]);
  }
}

void multiply_weights(const WeightBlock& b) {
  for (int o = 0; o < b.dy_tiles * kTileOutputs; o += 8) {
    if (b.x_tiles == 2) {
      multiply_outputs<2>(b, b.dy[o / 16], o % 16, b.acc + o * 32);
    } else {
      multiply_outputs<1>(b, b.dy[o / 16], o % 16, b.acc + o * 32);
    }
  }
}

void nothing() {}

template <class T>
constexpr TileKernels kKernels = {
    .name = "avx512",
    .line_channels = kLineFloats,
    .block_pixels = kPixels,
    .element_bytes = sizeof(T),
    .line_bytes = kLineBytes,
    .tile_bytes = kTileBytes,
    .pixels_per_line = 1,
    .step_bytes = kStepPixels* kLineBytes,
    .block_bytes = 32 << 10,
    .stream_weights = false,
    .begin = nothing,
    .end = nothing,
    .pack_lines = pack_lines<T>,
    .pack_weights = pack_weights,
    .multiply = multiply,
    .store = store_block<T>,
    .pack_dy = pack_tiles<T>,
    .pack_x = pack_x<T>,
    .multiply_weights = multiply_weights,
};

}  // namespace

template <class T>
const TileKernels* avx512_kernels() {
  static const bool usable = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return usable ? &kKernels<T> : nullptr;
}
#else
template <class T>
const TileKernels* avx512_kernels() {
  return nullptr;
}
#endif

template const TileKernels* avx512_kernels<float>();
template const TileKernels* avx512_kernels<bf16>();

}  // namespace depthstill::cpu
