// Attention does this between two products, on AVX-512: it takes exponentials of a block of scores and writes them as
// operands of the next product (lines of float, or of bf16).
#include <type_traits>

#include "kernels/attention/attention_tiles.h"
#include "kernels/conv2d/conv2d_bf16.h"
#include "kernels/core/split_float.h"

namespace depthstill::cpu {

#if defined(__x86_64__)
namespace {

using namespace simd;

// Operands are floats (lines of 16), bf16 (lines of 32) or floats in three bf16 parts (lines of 32).
struct FloatLines {
  static constexpr int kLinesPerPair = 2;
  static constexpr int64_t kLine = kLineBytes;
};
template <class Rounding>  // Bf16Instructions or their imitation
struct Bf16Lines : Rounding {
  static constexpr int kLinesPerPair = 1;
  static constexpr int64_t kLine = kLineBytes;
};
struct SplitLines {
  static constexpr int kLinesPerPair = 1;
  static constexpr int64_t kLine = kParts * kLineBytes, kTile = kParts * kTileBytes;
};
template <class Lines>
constexpr bool kIsSplit = std::is_same_v<Lines, SplitLines>;
template <class Lines>
constexpr bool kIsBf16 = !kIsSplit<Lines> && Lines::kLinesPerPair == 1;

// 2^t: polynomial in the fraction of t, minimax in relative error (1e-7; for bf16 results 7e-5). -infinity gives 0.
template <class Lines>
DS_AVX512_BF16_INLINE __m512 exp2_lanes(__m512 t) {
  constexpr int kFloor = 0x09;  // to -infinity, no exceptions
  const __m512 r = _mm512_reduce_ps(t, kFloor);
  __m512 p;
  if constexpr (!kIsBf16<Lines>) {
    p = _mm512_set1_ps(1.8775767e-3f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.9893397e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.58263175e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.240153611f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693153083f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.99999994f));
  } else {
    p = _mm512_set1_ps(7.80245215e-2f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.226067156f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.695833564f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.999925196f));
  }
  return _mm512_scalef_ps(p, t);
}

// 32 values of one row, as its part of a line or of two lines.
template <class Lines>
DS_AVX512_BF16_INLINE void store_lines(std::byte* line, int64_t line_stride, __m512 low, __m512 high) {
  if constexpr (Lines::kLinesPerPair == 2) {
    _mm512_store_ps(line, low);
    _mm512_store_ps(line + line_stride, high);
  } else if constexpr (kIsSplit<Lines>) {
    const Split a = split(low), b = split(high);
#pragma GCC unroll 3
    for (int k = 0; k < kParts; ++k) _mm512_store_si512(line + k * kLineBytes, upper_halves(a.part[k], b.part[k]));
  } else {
    _mm512_store_si512(line, Lines::round(low, high));
  }
}

// Multiplies what row i has accumulated.
DS_AVX512_BF16_INLINE void rescale(const SoftmaxBlock& b, int i, float factor) {
  const __m512 f = _mm512_set1_ps(factor);
  _mm512_storeu_ps(b.sums + i * 16, _mm512_mul_ps(_mm512_loadu_ps(b.sums + i * 16), f));
  float* acc = b.acc + i * kPairOutputs;
  for (int pair = 0; pair < b.acc_pairs; ++pair, acc += b.block_pixels * kPairOutputs) {
    _mm512_storeu_ps(acc, _mm512_mul_ps(_mm512_loadu_ps(acc), f));
    _mm512_storeu_ps(acc + 16, _mm512_mul_ps(_mm512_loadu_ps(acc + 16), f));
  }
}

template <class Lines>
DS_AVX512_BF16 void softmax(const SoftmaxBlock& b) {
  const int64_t pair_floats = int64_t{b.block_pixels} * kPairOutputs, line_stride = b.block_pixels * Lines::kLine;
  const __m512 scale = _mm512_set1_ps(b.scale_log2);
  for (int i = 0; i < b.rows; ++i) {
    const float* s = b.scores + i * kPairOutputs;
    __m512 max0 = _mm512_loadu_ps(s), max1 = _mm512_loadu_ps(s + 16);
    for (int pair = 1; pair < b.pairs; ++pair) {
      max0 = _mm512_max_ps(max0, _mm512_loadu_ps(s + pair * pair_floats));
      max1 = _mm512_max_ps(max1, _mm512_loadu_ps(s + pair * pair_floats + 16));
    }
    const float max = _mm512_reduce_max_ps(_mm512_max_ps(max0, max1)), old = b.max[i];
    if (max > old) {
      b.max[i] = max;
      const __m512 difference = _mm512_set1_ps((old - max) * b.scale_log2);
      rescale(b, i, _mm512_cvtss_f32(exp2_lanes<FloatLines>(difference)));
    }
    const __m512 shift = _mm512_set1_ps(b.max[i] * b.scale_log2);
    __m512 sum0 = _mm512_loadu_ps(b.sums + i * 16), sum1 = _mm512_setzero_ps();
    std::byte* line = b.lines + i * Lines::kLine;
    for (int pair = 0; pair < b.pairs; ++pair, s += pair_floats, line += Lines::kLinesPerPair * line_stride) {
      const __m512 p0 = exp2_lanes<Lines>(_mm512_fmsub_ps(_mm512_loadu_ps(s), scale, shift));
      const __m512 p1 = exp2_lanes<Lines>(_mm512_fmsub_ps(_mm512_loadu_ps(s + 16), scale, shift));
      sum0 = _mm512_add_ps(sum0, p0);
      sum1 = _mm512_add_ps(sum1, p1);
      store_lines<Lines>(line, line_stride, p0, p1);
    }
    _mm512_storeu_ps(b.sums + i * 16, _mm512_add_ps(sum0, sum1));
  }
}

// p and ds of one key and 32 queries.
struct Gradients {
  __m512 ds[2];
};

template <class Lines>
DS_AVX512_BF16_INLINE Gradients grad_row(const SoftmaxGradBlock& b, int64_t pair, int64_t key, const __m512 (&lse)[2],
                                         const __m512 (&delta)[2]) {
  const int64_t at = (pair * b.keys + key) * kPairOutputs;
  const __m512 scale = _mm512_set1_ps(b.scale_log2);
  __m512 p[2];
  Gradients g;
#pragma GCC unroll 2
  for (int t = 0; t < 2; ++t) {
    p[t] = exp2_lanes<Lines>(_mm512_fmsub_ps(_mm512_loadu_ps(b.scores + at + t * 16), scale, lse[t]));
    g.ds[t] = _mm512_mul_ps(p[t], _mm512_sub_ps(_mm512_loadu_ps(b.dp + at + t * 16), delta[t]));
  }
  const int64_t line = pair * Lines::kLinesPerPair * b.line_stride + key * Lines::kLine;
  store_lines<Lines>(b.p_lines + line, b.line_stride, p[0], p[1]);
  store_lines<Lines>(b.ds_lines + line, b.line_stride, g.ds[0], g.ds[1]);
  return g;
}

// ds of keys `key` and `key + 1` as inputs of a weight tile.
template <class Lines>
DS_AVX512_BF16_INLINE void store_tiles(std::byte* tiles, int64_t key, const Gradients& even, const Gradients& odd) {
#pragma GCC unroll 2
  for (int t = 0; t < 2; ++t) {
    if constexpr (Lines::kLinesPerPair == 2) {
      std::byte* row = tiles + (key / 16 * 2 + t) * kTileBytes + key % 16 * kLineBytes;
      _mm512_store_ps(row, even.ds[t]);
      _mm512_store_ps(row + kLineBytes, odd.ds[t]);
    } else if constexpr (kIsSplit<Lines>) {
      const Split a = split(even.ds[t]), b = split(odd.ds[t]);
      std::byte* row = tiles + (key / 32 * 2 + t) * Lines::kTile + key % 32 / 2 * kLineBytes;
#pragma GCC unroll 3
      for (int k = 0; k < kParts; ++k) {
        _mm512_store_si512(row + k * kTileBytes, interleave_upper(a.part[k], b.part[k]));
      }
    } else {
      _mm512_store_si512(tiles + (key / 32 * 2 + t) * kTileBytes + key % 32 / 2 * kLineBytes,
                         interleave_halves(Lines::round(even.ds[t], odd.ds[t])));
    }
  }
}

template <class Lines>
DS_AVX512_BF16 void softmax_grad(const SoftmaxGradBlock& b) {
  for (int64_t pair = 0; pair < b.pairs; ++pair) {
    const float *lse = b.lse_log2 + pair * kPairOutputs, *delta = b.delta + pair * kPairOutputs;
    const __m512 lse_lanes[2] = {_mm512_loadu_ps(lse), _mm512_loadu_ps(lse + 16)};
    const __m512 delta_lanes[2] = {_mm512_loadu_ps(delta), _mm512_loadu_ps(delta + 16)};
    for (int64_t key = 0; key < b.keys; key += 2) {
      const Gradients even = grad_row<Lines>(b, pair, key, lse_lanes, delta_lanes);
      const Gradients odd = grad_row<Lines>(b, pair, key + 1, lse_lanes, delta_lanes);
      store_tiles<Lines>(b.ds_tiles + pair * b.tile_stride, key, even, odd);
    }
  }
}

DS_AVX512 void transpose(const float* in, int64_t rows, int columns, float factor, float* out, int64_t out_stride) {
  const __m512 f = _mm512_set1_ps(factor);
  for (int64_t row = 0; row < rows; row += 16) {
    __m512i r[16];
    for (int i = 0; i < 16; ++i) {
      const __m512 values = row + i < rows ? _mm512_loadu_ps(in + (row + i) * kPairOutputs) : _mm512_setzero_ps();
      r[i] = _mm512_castps_si512(_mm512_mul_ps(values, f));
    }
    transpose16(r);
    for (int i = 0; i < columns; ++i) {
      _mm512_mask_storeu_ps(out + i * out_stride + row, mask16(rows - row), _mm512_castsi512_ps(r[i]));
    }
  }
}

template <class Lines>
constexpr AttentionKernels kKernels = {softmax<Lines>, softmax_grad<Lines>, transpose};

}  // namespace

const AttentionKernels& avx512_attention_kernels(const TileKernels& kernels) {
  if (kernels.line_bytes == SplitLines::kLine) return kKernels<SplitLines>;
  if (kernels.line_channels == 16) return kKernels<FloatLines>;
  return kernels.stand_in ? kKernels<Bf16Lines<Bf16Imitation>> : kKernels<Bf16Lines<Bf16Instructions>>;
}
#else
const AttentionKernels& avx512_attention_kernels(const TileKernels&) {
  static constexpr AttentionKernels kNone = {};  // there are no tile kernels to come here with
  return kNone;
}
#endif

}  // namespace depthstill::cpu
