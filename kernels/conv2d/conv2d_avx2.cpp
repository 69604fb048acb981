// AVX2 kernels of the tiled convolutions with fp32 arithmetic: lines of 16 floats, for fp32 images and for bf16 ones,
// which are widened when packed.
// Data: 6 pixels x 2 vectors of outputs = 12 accumulators, 2 weight vectors and a broadcast fill 15 of 16 registers; 8
// loads per 12 multiply-adds leave the two arithmetic ports as the bound.
// Weights: 6 or 5 outputs (broadcast) x 2 vectors of channels, 8 loads per 12 multiply-adds.
// Both are taken in chunks, whose operands stay in the L1 cache for all sums of a block.
#include "kernels/conv2d/conv2d_avx2.h"

#include <algorithm>
#include <cstring>

namespace depthstill::cpu {

#if defined(__x86_64__)
namespace {

using namespace avx2;

constexpr int kLineFloats = 16;
constexpr int kStrip = 6;                                  // pixels whose sums stay in registers
constexpr int64_t kChunkSteps = 4;                         // of a weight gradient: 16 KB of dy and x, in the L1 cache
constexpr int kFirstOutputs[] = {0, 6, 11, kTileOutputs};  // whose sums stay in registers

// ---- packing -----------------------------------------------------------------------------------------------------

template <class T>
DS_AVX2 void pack_lines(const void* const* pixels, int64_t count, int64_t first, int channels, int64_t line_stride,
                        std::byte* lines) {
  for (int64_t i = 0; i < count; ++i, lines += kLineBytes) {
    const T* pixel = static_cast<const T*>(pixels[i]) + first;
    std::byte* line = lines;
    for (int c = 0; c < channels; c += kLineFloats, line += line_stride) {
      auto* to = reinterpret_cast<float*>(line);
      _mm256_store_ps(to, load(pixel + c, channels - c));
      _mm256_store_ps(to + kVector, load(pixel + c + kVector, channels - c - kVector));
    }
  }
}

// Tile [16 inputs][16 outputs].
DS_AVX2 void pack_weights(const float* w, int64_t output_stride, int64_t input_stride, int outputs, int inputs,
                          std::byte* tile) {
  auto* to = reinterpret_cast<float*>(tile);
  for (int o = 0; o < kTileOutputs; o += kVector) {
    for (int c = 0; c < kLineFloats; c += kVector) {
      __m256 rows[kVector];
      for (int i = 0; i < kVector; ++i) {
        const bool by_output = input_stride == 1;
        const int row = by_output ? o + i : c + i, column = by_output ? c : o;
        const int row_count = by_output ? outputs : inputs, columns = by_output ? inputs : outputs;
        const int64_t stride = by_output ? output_stride : input_stride;
        rows[i] = row < row_count && column < columns ? load(w + row * stride + column, columns - column)
                                                      : _mm256_setzero_ps();
      }
      if (input_stride == 1) transpose8(rows);
      for (int i = 0; i < kVector; ++i) _mm256_store_ps(to + (c + i) * kTileOutputs + o, rows[i]);
    }
  }
}

// Tiles of 16 channels, a line per pixel: the layout of x and of dy alike.
template <class T>
DS_AVX2 void pack_tiles(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, std::byte* out) {
  pack_lines<T>(pixels, steps * kStepPixels, 0, channels, tile_stride, out);
}
template <class T>
void pack_x(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, int64_t, std::byte* out) {
  pack_tiles<T>(pixels, steps, channels, tile_stride, out);
}

// ---- products ----------------------------------------------------------------------------------------------------

// Taps and lines of a block whose weights stay in the L1 cache while all its pixels are multiplied with them.
struct Chunk {
  int first_tap, last_tap, first_line, last_line;
};

// kStrip pixels x one tile of outputs.
DS_AVX2 void multiply_strip(const DataBlock& b, const Chunk& chunk, int pixel, int tile) {
  const bool first = b.first && chunk.first_tap == 0 && chunk.first_line == 0;
  float* acc = b.acc + pixel * kPairOutputs + tile * kTileOutputs;
  __m256 sums[kStrip][2];
#pragma GCC unroll 6
  for (int i = 0; i < kStrip; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      sums[i][v] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(acc + i * kPairOutputs + v * kVector);
    }
  }
  for (int tap = chunk.first_tap; tap < chunk.last_tap; ++tap) {
    const std::byte* line = b.lines + b.tap_offsets[tap] + chunk.first_line * b.line_stride + pixel * kLineBytes;
    const std::byte* weights = b.weights + ((int64_t{tap} * b.line_count + chunk.first_line) * 2 + tile) * kTileBytes;
    for (int l = chunk.first_line; l < chunk.last_line; ++l, line += b.line_stride, weights += 2 * kTileBytes) {
      const auto* a = reinterpret_cast<const float*>(line);
      const auto* w = reinterpret_cast<const float*>(weights);
#pragma GCC unroll 4
      for (int k = 0; k < kLineFloats; ++k, ++a, w += kTileOutputs) {
        const __m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + kVector);
#pragma GCC unroll 6
        for (int i = 0; i < kStrip; ++i) {
          const __m256 ai = _mm256_broadcast_ss(a + i * kLineFloats);
          sums[i][0] = _mm256_fmadd_ps(ai, w0, sums[i][0]);
          sums[i][1] = _mm256_fmadd_ps(ai, w1, sums[i][1]);
        }
      }
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < kStrip; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) _mm256_storeu_ps(acc + i * kPairOutputs + v * kVector, sums[i][v]);
  }
}

constexpr int kBlockPixels = 4 * kStrip;
constexpr int kChunkLines = 8;  // 16 KB of weights

void multiply(const DataBlock& b) {
  const int lines = std::min(b.line_count, kChunkLines), taps = std::max(kChunkLines / b.line_count, 1);
  for (int tap = 0; tap < b.taps; tap += taps) {
    for (int line = 0; line < b.line_count; line += lines) {
      const Chunk chunk{tap, std::min(tap + taps, b.taps), line, std::min(line + lines, b.line_count)};
      for (int t = 0; t < b.tiles; ++t) {
        for (int i = 0; i < b.pixels; i += kStrip) multiply_strip(b, chunk, i, t);
      }
    }
  }
}

// `outputs` of one tile of dy x one tile of channels, over `pixels` lines of both.
template <int outputs>
DS_AVX2 void multiply_outputs(const float* dy, const float* x, int64_t pixels, bool first, float* acc) {
  __m256 sums[outputs][2];
#pragma GCC unroll 6
  for (int o = 0; o < outputs; ++o) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) sums[o][v] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(acc + o * 32 + v * kVector);
  }
#pragma GCC unroll 4
  for (int64_t k = 0; k < pixels; ++k, dy += kLineFloats, x += kLineFloats) {
    const __m256 x0 = _mm256_load_ps(x), x1 = _mm256_load_ps(x + kVector);
#pragma GCC unroll 6
    for (int o = 0; o < outputs; ++o) {
      const __m256 d = _mm256_broadcast_ss(dy + o);
      sums[o][0] = _mm256_fmadd_ps(d, x0, sums[o][0]);
      sums[o][1] = _mm256_fmadd_ps(d, x1, sums[o][1]);
    }
  }
#pragma GCC unroll 6
  for (int o = 0; o < outputs; ++o) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) _mm256_storeu_ps(acc + o * 32 + v * kVector, sums[o][v]);
  }
}

void multiply_weights(const WeightBlock& b) {
  for (int64_t step = 0; step < b.steps; step += kChunkSteps) {
    const int64_t pixels = std::min(kChunkSteps, b.steps - step) * kStepPixels, at = step * kStepPixels * kLineFloats;
    const bool first = b.first && step == 0;
    for (int d = 0; d < b.dy_tiles; ++d) {
      const float* dy = reinterpret_cast<const float*>(b.dy[d]) + at;
      for (int t = 0; t < b.x_tiles; ++t) {
        const float* x = reinterpret_cast<const float*>(b.x[t]) + at;
        float* acc = b.acc + d * kTileOutputs * 32 + t * kTileOutputs;
        multiply_outputs<6>(dy, x, pixels, first, acc);
        multiply_outputs<5>(dy + kFirstOutputs[1], x, pixels, first, acc + kFirstOutputs[1] * 32);
        multiply_outputs<5>(dy + kFirstOutputs[2], x, pixels, first, acc + kFirstOutputs[2] * 32);
      }
    }
  }
}

// As many sums as multiply_strip has, which cover the latency of the instruction.
DS_AVX2 double burn(int64_t iterations) {
  constexpr int kSums = 2 * kStrip;
  __m256 sum[kSums], a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(0.5f);
  asm volatile("" : "+x"(a), "+x"(b));  // the compiler does not know the factors
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  for (int64_t k = 0; k < iterations; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = _mm256_fmadd_ps(sum[i], a, b);
  }
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "x"(sum[i]));  // and that the sums are used
  return static_cast<double>(iterations) * kSums * kVector * 2;
}

// ---- results -----------------------------------------------------------------------------------------------------

// activate() of kernels/activation.h on 8 values; max and min return their second operand for NaN, so NaN passes.
template <Activation kind>
DS_AVX2_INLINE __m256 activate8(__m256 v) {
  if constexpr (kind == Activation::kRelu || kind == Activation::kRelu6) v = _mm256_max_ps(_mm256_setzero_ps(), v);
  if constexpr (kind == Activation::kRelu6) v = _mm256_min_ps(_mm256_set1_ps(6.0f), v);
  if constexpr (kind == Activation::kSigmoid) {
    alignas(32) float values[kVector];
    _mm256_store_ps(values, v);
    for (float& value : values) value = activate<Activation::kSigmoid>(value);
    v = _mm256_load_ps(values);
  }
  return v;
}

template <class T, Activation kind>
DS_AVX2 void store_pixels(const StoreBlock& b) {
  const float* acc = b.acc;
  for (int i = 0; i < b.count; ++i, acc += kPairOutputs) {
    if (!b.out[i]) continue;
    T* y = static_cast<T*>(b.out[i]) + b.first_output;
    for (int o = 0; o < b.outputs; o += kVector) {
      const int count = b.outputs - o;
      const __m256 bias = b.bias ? load(b.bias + o, count) : _mm256_setzero_ps();
      store(y + o, count, activate8<kind>(_mm256_add_ps(_mm256_loadu_ps(acc + o), bias)));
    }
  }
}
template <class T>
void store_block(const StoreBlock& b) {
  visit(b.act, [&]<Activation kind>() { store_pixels<T, kind>(b); });
}

void nothing() {}

template <class T>
constexpr TileKernels kKernels = {
    .name = "avx2",
    .line_channels = kLineFloats,
    .block_pixels = kBlockPixels,
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
    .burn = burn,
};

}  // namespace

template <class T>
const TileKernels* avx2_kernels() {
  static const bool usable = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return usable ? &kKernels<T> : nullptr;
}
#else
template <class T>
const TileKernels* avx2_kernels() {
  return nullptr;
}
#endif

template const TileKernels* avx2_kernels<float>();
template const TileKernels* avx2_kernels<bf16>();

}  // namespace depthstill::cpu
