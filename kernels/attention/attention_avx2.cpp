// Attention does this between two products, on AVX2: it takes exponentials of a block of scores and writes them as
// operands of the next product, lines of 16 floats.
#include "kernels/attention/attention_tiles.h"
#include "kernels/conv2d/conv2d_avx2.h"

namespace depthstill::cpu {

#if defined(__x86_64__)
namespace {

using namespace avx2;

constexpr int kVectors = kPairOutputs / kVector;  // of a row
constexpr int kLineVectors = kTileOutputs / kVector;

// 2^t: polynomial in the fraction of t, minimax in relative error (1e-7). Below 2^-126 it is 0; NaN stays NaN.
DS_AVX2_INLINE __m256 exp2_lanes(__m256 t) {
  t = _mm256_min_ps(_mm256_set1_ps(128.0f), _mm256_max_ps(_mm256_set1_ps(-127.0f), t));
  const __m256 whole = _mm256_floor_ps(t), r = _mm256_sub_ps(t, whole);
  __m256 p = _mm256_set1_ps(1.8775767e-3f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.9893397e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.58263175e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.240153611f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.693153083f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.99999994f));
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
  return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

DS_AVX2_INLINE float max_of(__m256 v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// Vector v of 32 values of one row, in the two lines that hold them.
DS_AVX2_INLINE void store_line(std::byte* line, int64_t line_stride, int v, __m256 value) {
  auto* to = reinterpret_cast<float*>(line + v / kLineVectors * line_stride);
  _mm256_store_ps(to + v % kLineVectors * kVector, value);
}

DS_AVX2_INLINE void scale_floats(float* x, int count, __m256 factor) {
  for (int i = 0; i < count; i += kVector) _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
}

DS_AVX2 void softmax(const SoftmaxBlock& b) {
  const int64_t pair_floats = int64_t{b.block_pixels} * kPairOutputs, line_stride = b.block_pixels * kLineBytes;
  const __m256 scale = _mm256_set1_ps(b.scale_log2);
  for (int i = 0; i < b.rows; ++i) {
    const float* s = b.scores + i * kPairOutputs;
    __m256 maxima = _mm256_loadu_ps(s);
    for (int pair = 0; pair < b.pairs; ++pair) {
      for (int v = 0; v < kVectors; ++v) {
        maxima = _mm256_max_ps(maxima, _mm256_loadu_ps(s + pair * pair_floats + v * kVector));
      }
    }
    const float max = max_of(maxima), old = b.max[i];
    if (max > old) {
      b.max[i] = max;
      const __m256 factor = exp2_lanes(_mm256_set1_ps((old - max) * b.scale_log2));
      scale_floats(b.sums + i * 16, 16, factor);
      for (int pair = 0; pair < b.acc_pairs; ++pair) {
        scale_floats(b.acc + (int64_t{pair} * b.block_pixels + i) * kPairOutputs, kPairOutputs, factor);
      }
    }
    const __m256 shift = _mm256_set1_ps(b.max[i] * b.scale_log2);
    __m256 sums[2] = {_mm256_loadu_ps(b.sums + i * 16), _mm256_loadu_ps(b.sums + i * 16 + kVector)};
    std::byte* line = b.lines + i * kLineBytes;
    for (int pair = 0; pair < b.pairs; ++pair, s += pair_floats, line += 2 * line_stride) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const __m256 p = exp2_lanes(_mm256_fmsub_ps(_mm256_loadu_ps(s + v * kVector), scale, shift));
        sums[v % 2] = _mm256_add_ps(sums[v % 2], p);
        store_line(line, line_stride, v, p);
      }
    }
    for (int v = 0; v < 2; ++v) _mm256_storeu_ps(b.sums + i * 16 + v * kVector, sums[v]);
  }
}

DS_AVX2 void softmax_grad(const SoftmaxGradBlock& b) {
  const __m256 scale = _mm256_set1_ps(b.scale_log2);
  for (int64_t pair = 0; pair < b.pairs; ++pair) {
    const float *lse = b.lse_log2 + pair * kPairOutputs, *delta = b.delta + pair * kPairOutputs;
    std::byte* tiles = b.ds_tiles + pair * b.tile_stride;
    for (int64_t key = 0; key < b.keys; ++key) {
      const int64_t at = (pair * b.keys + key) * kPairOutputs, line = pair * 2 * b.line_stride + key * kLineBytes;
      std::byte* tile = tiles + key / kTileOutputs * 2 * kTileBytes + key % kTileOutputs * kLineBytes;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const __m256 t =
            _mm256_fmsub_ps(_mm256_loadu_ps(b.scores + at + v * kVector), scale, _mm256_loadu_ps(lse + v * kVector));
        const __m256 p = exp2_lanes(t);
        const __m256 ds = _mm256_mul_ps(
            p, _mm256_sub_ps(_mm256_loadu_ps(b.dp + at + v * kVector), _mm256_loadu_ps(delta + v * kVector)));
        store_line(b.p_lines + line, b.line_stride, v, p);
        store_line(b.ds_lines + line, b.line_stride, v, ds);
        store_line(tile, kTileBytes, v, ds);  // a row of one of two weight tiles is like a line
      }
    }
  }
}

DS_AVX2 void transpose(const float* in, int64_t rows, int columns, float factor, float* out, int64_t out_stride) {
  const __m256 f = _mm256_set1_ps(factor);
  for (int64_t row = 0; row < rows; row += kVector) {
    for (int column = 0; column < columns; column += kVector) {
      __m256 r[kVector];
      for (int i = 0; i < kVector; ++i) {
        r[i] = row + i < rows ? _mm256_mul_ps(_mm256_loadu_ps(in + (row + i) * kPairOutputs + column), f)
                              : _mm256_setzero_ps();
      }
      transpose8(r);
      for (int i = 0; i < std::min(kVector, columns - column); ++i) {
        store(out + (column + i) * out_stride + row, rows - row, r[i]);
      }
    }
  }
}

}  // namespace

const AttentionKernels& avx2_attention_kernels() {
  static constexpr AttentionKernels kKernels = {softmax, softmax_grad, transpose};
  return kKernels;
}
#else
const AttentionKernels& avx2_attention_kernels() {
  static constexpr AttentionKernels kNone = {};  // there are no tile kernels to come here with
  return kNone;
}
#endif

}  // namespace depthstill::cpu
