// AVX-512 kernels of the tiled convolutions, for any arithmetic on dwords: a line is 16 of them, one float or two bf16
// channels each, and a row of a weight tile holds one for each of 16 outputs.
// Data: 14 pixels x 2 vectors of outputs = 28 accumulators, 2 weight vectors and a broadcast fill the 32 registers; 16
// loads per 28 multiply-adds leave the two arithmetic ports as the bound.
// Weights: 8 outputs (broadcast) x 2 vectors of channels = 16 accumulators, 10 loads per 16 multiply-adds.
//
// Math is the arithmetic:
//   multiply_add(acc, a, b)             acc + a * b; with bf16, of both pairs
//   Mode                                lives while it computes
//   kOperations                         of a multiply_add of one accumulator
//   kStep, kInputStride, kOutputStride  dwords of a step of packed dy, from a dword of an output to its next, and from
//                                       output to output
//   kInputs                             dwords of an output in a step
#pragma once

#include "kernels/conv2d/conv2d_simd.h"

#if defined(__x86_64__)
namespace depthstill::cpu::avx512 {

inline constexpr int kPixels = 14;
inline constexpr int kLineWords = 16;
inline constexpr int kTileWords = 16 * kLineWords;

template <class Math, int tiles>
DS_AVX512_BF16 void multiply_tiles(const DataBlock& b) {
  [[maybe_unused]] const typename Math::Mode mode;
  __m512 acc[kPixels][tiles];
#pragma GCC unroll 14
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 2
    for (int t = 0; t < tiles; ++t) {
      acc[i][t] = b.first ? _mm512_setzero_ps() : _mm512_loadu_ps(b.acc + i * kPairOutputs + t * kTileOutputs);
    }
  }
  const std::byte* weights = b.weights;
  for (int tap = 0; tap < b.taps; ++tap) {
    const std::byte* line = b.lines + b.tap_offsets[tap];
    for (int l = 0; l < b.line_count; ++l, line += b.line_stride, weights += 2 * kTileBytes) {
      const auto* a = reinterpret_cast<const float*>(line);
      const auto* w = reinterpret_cast<const float*>(weights);
#pragma GCC unroll 2
      for (int k = 0; k < kLineWords; ++k, ++a, w += kTileOutputs) {
        __m512 wk[tiles];
#pragma GCC unroll 2
        for (int t = 0; t < tiles; ++t) wk[t] = _mm512_load_ps(w + t * kTileWords);
#pragma GCC unroll 14
        for (int i = 0; i < kPixels; ++i) {
          const __m512 ai = _mm512_set1_ps(a[i * kLineWords]);
#pragma GCC unroll 2
          for (int t = 0; t < tiles; ++t) acc[i][t] = Math::multiply_add(acc[i][t], ai, wk[t]);
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

template <class Math>
void multiply(const DataBlock& b) {
  b.tiles == 2 ? multiply_tiles<Math, 2>(b) : multiply_tiles<Math, 1>(b);
}

// 8 outputs from `first` of one tile of dy, x_tiles x 16 channels.
template <class Math, int x_tiles>
DS_AVX512_BF16 void multiply_outputs(const WeightBlock& b, const std::byte* dy_tile, int first, float* acc_rows) {
  constexpr int kOutputs = 8;
  [[maybe_unused]] const typename Math::Mode mode;
  __m512 acc[kOutputs][x_tiles];
#pragma GCC unroll 8
  for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 2
    for (int t = 0; t < x_tiles; ++t) {
      acc[o][t] = b.first ? _mm512_setzero_ps() : _mm512_loadu_ps(acc_rows + o * 32 + t * 16);
    }
  }
  const float* step = reinterpret_cast<const float*>(dy_tile) + first * Math::kOutputStride;
  const auto* x0 = reinterpret_cast<const float*>(b.x[0]);
  const auto* x1 = reinterpret_cast<const float*>(b.x[1]);
  for (int64_t s = 0; s < b.steps; ++s, step += Math::kStep) {
    const float* dy = step;
#pragma GCC unroll 2
    for (int k = 0; k < Math::kInputs; ++k, dy += Math::kInputStride, x0 += kLineWords, x1 += kLineWords) {
      __m512 x[x_tiles];
      x[0] = _mm512_load_ps(x0);
      if constexpr (x_tiles == 2) x[1] = _mm512_load_ps(x1);
#pragma GCC unroll 8
      for (int o = 0; o < kOutputs; ++o) {
        const __m512 d = _mm512_set1_ps(dy[o * Math::kOutputStride]);
#pragma GCC unroll 2
        for (int t = 0; t < x_tiles; ++t) acc[o][t] = Math::multiply_add(acc[o][t], d, x[t]);
      }
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 2
    for (int t = 0; t < x_tiles; ++t) _mm512_storeu_ps(acc_rows + o * 32 + t * 16, acc[o][t]);
  }
}

template <class Math>
void multiply_weights(const WeightBlock& b) {
  for (int o = 0; o < b.dy_tiles * kTileOutputs; o += 8) {
    if (b.x_tiles == 2) {
      multiply_outputs<Math, 2>(b, b.dy[o / 16], o % 16, b.acc + o * 32);
    } else {
      multiply_outputs<Math, 1>(b, b.dy[o / 16], o % 16, b.acc + o * 32);
    }
  }
}

// As many sums as multiply_tiles has, which cover the latency of the instruction.
template <class Math>
DS_AVX512_BF16 double burn(int64_t iterations) {
  constexpr int kSums = 28;
  [[maybe_unused]] const typename Math::Mode mode;
  __m512 sum[kSums], a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(0.5f);
  asm volatile("" : "+v"(a), "+v"(b));  // the compiler does not know the factors
#pragma GCC unroll 28
  for (int i = 0; i < kSums; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 28
    for (int i = 0; i < kSums; ++i) sum[i] = Math::multiply_add(sum[i], a, b);
  }
#pragma GCC unroll 28
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "v"(sum[i]));  // and that the sums are used
  return static_cast<double>(iterations) * kSums * 16 * Math::kOperations;
}

inline void nothing() {}

}  // namespace depthstill::cpu::avx512
#endif
