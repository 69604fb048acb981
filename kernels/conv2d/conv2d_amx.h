// The AMX kernels of the convolutions share 2 x 2 accumulator tiles of 16 x 16 floats. Only files that ask amx_usable()
// at run time include this header.
#pragma once

#include "kernels/conv2d/conv2d_simd.h"

#if defined(__x86_64__) && defined(__linux__)

#define DS_AMX __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define DS_AMX_INLINE DS_AMX __attribute__((always_inline)) inline

namespace depthstill::cpu::amx {

inline constexpr int kLineChannels = 32;
inline constexpr int kAccStride = kPairOutputs * 4;  // bytes

// 8 tiles of 16 rows x 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// The configuration lies in static memory: the compiler does not see that the instruction reads all of it.
inline constexpr TileConfig kConfig;

DS_AMX inline void begin_tiles() { _tile_loadconfig(&kConfig); }
DS_AMX inline void end_tiles() { _tile_release(); }

// Tiles 0-3 accumulate (row * 2 + column), 4 and 5 hold A, 6 and 7 hold B.
template <int rows, int columns>
DS_AMX_INLINE void load_acc(const float* acc, bool first) {
  if (first) {
    _tile_zero(0);
    if constexpr (columns == 2) _tile_zero(1);
    if constexpr (rows == 2) _tile_zero(2);
    if constexpr (rows == 2 && columns == 2) _tile_zero(3);
  } else {
    _tile_loadd(0, acc, kAccStride);
    if constexpr (columns == 2) _tile_loadd(1, acc + 16, kAccStride);
    if constexpr (rows == 2) _tile_loadd(2, acc + 16 * 32, kAccStride);
    if constexpr (rows == 2 && columns == 2) _tile_loadd(3, acc + 16 * 32 + 16, kAccStride);
  }
}

template <int rows, int columns>
DS_AMX_INLINE void store_acc(float* acc) {
  _tile_stored(0, acc, kAccStride);
  if constexpr (columns == 2) _tile_stored(1, acc + 16, kAccStride);
  if constexpr (rows == 2) _tile_stored(2, acc + 16 * 32, kAccStride);
  if constexpr (rows == 2 && columns == 2) _tile_stored(3, acc + 16 * 32 + 16, kAccStride);
}

// An Operand says where its first and its second tile are.
struct Operand {
  const std::byte *first, *second;
};

// The loops over a block. Format says how operands are stored: kLine and kTile, the bytes of a line and of a tile, and
// data_step and weight_step, which multiply one line of channels (A: lines, B: weights), or one step of pixels (A: dy,
// B: x), for `rows` tiles of A and `columns` tiles of B.
template <class Format, int rows, int columns>
DS_AMX void multiply_tiles(const DataBlock& b) {
  // The tile intrinsics do not tell the compiler that they read memory.
  asm volatile("" ::: "memory");
  load_acc<rows, columns>(b.acc, b.first);
  const std::byte* weights = b.weights;
  for (int tap = 0; tap < b.taps; ++tap) {
    const std::byte* line = b.lines + b.tap_offsets[tap];
    for (int l = 0; l < b.line_count; ++l, line += b.line_stride, weights += 2 * Format::kTile) {
      Format::template data_step<rows, columns>({line, line + 16 * Format::kLine}, {weights, weights + Format::kTile});
    }
  }
  store_acc<rows, columns>(b.acc);
}

template <class Format>
void multiply(const DataBlock& b) {
  if (b.pixels > 16) {
    b.tiles == 2 ? multiply_tiles<Format, 2, 2>(b) : multiply_tiles<Format, 2, 1>(b);
  } else {
    b.tiles == 2 ? multiply_tiles<Format, 1, 2>(b) : multiply_tiles<Format, 1, 1>(b);
  }
}

template <class Format, int rows, int columns>
DS_AMX void multiply_weight_tiles(const WeightBlock& b) {
  asm volatile("" ::: "memory");
  load_acc<rows, columns>(b.acc, b.first);
  Operand dy{b.dy[0], b.dy[1]}, x{b.x[0], b.x[1]};
  for (int64_t k = 0; k < b.steps; ++k) {
    Format::template weight_step<rows, columns>(dy, x);
    for (const std::byte** p : {&dy.first, &dy.second, &x.first, &x.second}) *p += Format::kTile;
  }
  store_acc<rows, columns>(b.acc);
}

template <class Format>
void multiply_weights(const WeightBlock& b) {
  if (b.dy_tiles == 2) {
    b.x_tiles == 2 ? multiply_weight_tiles<Format, 2, 2>(b) : multiply_weight_tiles<Format, 2, 1>(b);
  } else {
    b.x_tiles == 2 ? multiply_weight_tiles<Format, 1, 2>(b) : multiply_weight_tiles<Format, 1, 1>(b);
  }
}

// `products` of bf16 for each multiply-add.
template <int products>
DS_AMX double burn(int64_t iterations) {
  begin_tiles();
  load_acc<2, 2>(nullptr, true);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t i = 0; i < iterations; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  end_tiles();
  return static_cast<double>(iterations) * 4 * 2 * 16 * 16 * 32 / products;
}

}  // namespace depthstill::cpu::amx
#endif
