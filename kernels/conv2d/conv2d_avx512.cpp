// AVX-512 kernels of the tiled convolutions with fp32 arithmetic: lines of 16 floats, for fp32 images and for bf16
// ones, which are widened when packed.
#include "kernels/conv2d/conv2d_avx512.h"

namespace depthstill::cpu {

#if defined(__x86_64__)
namespace {

using namespace simd;

constexpr int kLineFloats = avx512::kLineWords;

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

// Tiles of 16 channels, a line per pixel: the layout of x and of dy alike.
template <class T>
DS_AVX512 void pack_tiles(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, std::byte* out) {
  pack_lines<T>(pixels, steps * kStepPixels, 0, channels, tile_stride, out);
}
template <class T>
void pack_x(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, int64_t, std::byte* out) {
  pack_tiles<T>(pixels, steps, channels, tile_stride, out);
}

// Packed dy is [step][32 pixels][16 outputs].
struct FloatMath {
  struct Mode {};
  static constexpr int kOperations = 2;
  static constexpr int kInputs = kStepPixels, kStep = kInputs * 16, kInputStride = 16, kOutputStride = 1;

  DS_AVX512_BF16_INLINE static __m512 multiply_add(__m512 acc, __m512 a, __m512 b) {
    return _mm512_fmadd_ps(a, b, acc);
  }
};

template <class T>
constexpr TileKernels kKernels = {
    .name = "avx512",
    .line_channels = kLineFloats,
    .block_pixels = avx512::kPixels,
    .element_bytes = sizeof(T),
    .line_bytes = kLineBytes,
    .tile_bytes = kTileBytes,
    .pixels_per_line = 1,
    .step_bytes = kStepPixels* kLineBytes,
    .block_bytes = 32 << 10,
    .stream_weights = false,
    .begin = avx512::nothing,
    .end = avx512::nothing,
    .pack_lines = pack_lines<T>,
    .pack_weights = pack_weights,
    .multiply = avx512::multiply<FloatMath>,
    .store = store_block<T>,
    .pack_dy = pack_tiles<T>,
    .pack_x = pack_x<T>,
    .multiply_weights = avx512::multiply_weights<FloatMath>,
    .burn = avx512::burn<FloatMath>,
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
