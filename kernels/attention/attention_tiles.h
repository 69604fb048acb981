// Attention on the CPU over the tile kernels of the convolutions (conv2d_tiles.h): rows of one operand are "pixels",
// the other operand is packed as "weights". The drivers (attention_tiles.cpp, attention_tiles_grad.cpp) block for the
// caches and know no instruction set; what happens between two products is in attention_avx512.cpp and
// attention_avx2.cpp. attention_plain.cpp serves processors without either.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>

#include "kernels/attention/attention.h"
#include "kernels/conv2d/conv2d_tiles.h"
#include "kernels/core/lanes.h"

namespace depthstill::cpu {

// Scores of `rows` queries and 32 * pairs keys become exp(scale (s - max)) as lines of keys; the running maxima and
// sums follow, and what has been accumulated with older maxima is scaled down.
struct SoftmaxBlock {
  const float* scores;  // [pair of key tiles][block_pixels][32]
  float* max;           // [rows], of the unscaled scores
  float* sums;          // [rows][16], to be added up
  float* acc;           // [acc_pairs][block_pixels][32]
  std::byte* lines;     // [line of keys][block_pixels]
  float scale_log2;     // scale * log2(e)
  int pairs, acc_pairs, rows, block_pixels;
};

// Transposed scores and dp of `keys` keys (an even number) and 32 * pairs queries become p and ds = p (dp - delta).
struct SoftmaxGradBlock {
  const float* scores;    // [pair of query tiles][keys][32]
  const float* dp;        // the same
  const float* lse_log2;  // [query], lse * log2(e)
  const float* delta;     // [query]
  std::byte* p_lines;     // [line of queries][keys]
  std::byte* ds_lines;    // the same
  std::byte* ds_tiles;    // weights: [pair of query tiles][line of keys][2 tiles]
  float scale_log2;
  int64_t line_stride;  // bytes from a line of queries to the next
  int64_t tile_stride;  // bytes from a pair of query tiles to the next
  int pairs, keys;
};

struct AttentionKernels {
  void (*softmax)(const SoftmaxBlock& block);
  void (*softmax_grad)(const SoftmaxGradBlock& block);
  // out[column][row] = factor * in[row][column] for `columns` <= 16 columns; rows of `in` are 32 floats apart, those of
  // `out` out_stride.
  void (*transpose)(const float* in, int64_t rows, int columns, float factor, float* out, int64_t out_stride);
};
const AttentionKernels& avx512_attention_kernels(const TileKernels& kernels);
const AttentionKernels& avx2_attention_kernels();
inline const AttentionKernels& attention_kernels(const TileKernels& kernels) {
  const bool avx2 = &kernels == avx2_kernels<float>() || &kernels == avx2_kernels<bf16>();
  return avx2 ? avx2_attention_kernels() : avx512_attention_kernels(kernels);
}

template <class T>
void tiled_attention(const TileKernels& kernels, Stream stream, const AttentionShape& shape, const T* qkv, T* y,
                     float* lse);
template <class T>
void tiled_attention_grad(const TileKernels& kernels, Stream stream, const AttentionShape& shape, const T* qkv,
                          const T* y, const float* lse, const T* dy, T* dqkv);

template <class T>
void plain_attention(Stream stream, const AttentionShape& shape, const T* qkv, T* y, float* lse);
template <class T>
void plain_attention_grad(Stream stream, const AttentionShape& shape, const T* qkv, const T* y, const float* lse,
                          const T* dy, T* dqkv);

// ---- shared by the drivers ---------------------------------------------------------------------------------------

namespace attention_detail {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t align_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline constexpr float kLog2E = std::numbers::log2e_v<float>;
inline float score_scale(const AttentionShape& shape) { return 1.0f / std::sqrt(static_cast<float>(shape.d())); }

// One head's rows of one operand.
template <class T>
struct Rows {
  const T* data;
  int64_t stride;  // elements
  int64_t count;
  int64_t d;
};

// Hands out consecutive, aligned pieces of a block of memory; without memory it only counts.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}
  template <class T>
  T* take(int64_t count) {
    auto* piece = reinterpret_cast<T*>(memory_ ? memory_ + bytes_ : nullptr);
    bytes_ += align_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return piece;
  }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  int64_t bytes_ = 0;
};

// to = factor * from
template <class T>
void store_scaled(int64_t n, float factor, const float* from, T* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_lanes(to + i, load_lanes(from + i) * factor);
  for (; i < n; ++i) to[i] = static_cast<T>(from[i] * factor);
}

// Operands are packed in two ways:
//   as outputs   rows are outputs and channels inputs   [pair of rows][line of d][2 tiles]
//   as inputs    rows are inputs and channels outputs   [pair of channels][line of rows][2 tiles]
struct Packing {
  const TileKernels& kernels;
  int64_t d, d_lines, d_pairs;
  int64_t rows, row_pairs, row_lines;  // numbers of a whole head; lines cover all pairs

  Packing(const TileKernels& tile_kernels, int64_t head_channels, int64_t row_count)
      : kernels(tile_kernels),
        d(head_channels),
        d_lines(ceil_div(d, tile_kernels.line_channels)),
        d_pairs(ceil_div(d, kPairOutputs)),
        rows(row_count),
        row_pairs(ceil_div(rows, kPairOutputs)),
        row_lines(row_pairs * lines_per_pair()) {}

  int64_t lines_per_pair() const { return kPairOutputs / kernels.line_channels; }
  int64_t as_outputs_bytes() const { return row_pairs * d_lines * 2 * kernels.tile_bytes; }
  int64_t as_inputs_bytes() const { return d_pairs * row_lines * 2 * kernels.tile_bytes; }
  int channel_tiles(int64_t pair) const { return d - pair * kPairOutputs > kTileOutputs ? 2 : 1; }

  // Either destination may be null; `floats` holds 32 rows.
  template <class T>
  void pack(const Rows<T>& from, std::byte* as_outputs, std::byte* as_inputs, float* floats) const {
    for (int64_t pair = 0; pair < row_pairs; ++pair) {
      const int64_t first = pair * kPairOutputs, count = std::min<int64_t>(kPairOutputs, rows - first);
      const T* data = from.data + first * from.stride;
      const float* w = floats;
      int64_t stride = d;
      if constexpr (sizeof(T) == sizeof(float)) {
        w = data;
        stride = from.stride;
      } else {
        for (int64_t r = 0; r < count; ++r) {
          for (int64_t c = 0; c < d; ++c) floats[r * d + c] = static_cast<float>(data[r * from.stride + c]);
        }
      }
      if (as_outputs) pack_pair_as_outputs(w, stride, count, as_outputs + pair * d_lines * 2 * kernels.tile_bytes);
      if (as_inputs)
        pack_pair_as_inputs(w, stride, count, as_inputs + pair * lines_per_pair() * 2 * kernels.tile_bytes);
    }
  }

  // The channels of `count` rows as lines [line][row]; rows past the last repeat it. `table` holds `padded` pointers.
  template <class T>
  void pack_lines(const Rows<T>& from, int64_t first, int64_t count, int64_t padded, int64_t line_stride,
                  const void** table, std::byte* lines) const {
    for (int64_t i = 0; i < padded; ++i) table[i] = from.data + (first + std::min(i, count - 1)) * from.stride;
    kernels.pack_lines(table, padded, 0, static_cast<int>(d), line_stride, lines);
  }

 private:
  void pack_pair_as_outputs(const float* w, int64_t stride, int64_t count, std::byte* tile) const {
    for (int64_t line = 0; line < d_lines; ++line) {
      const int64_t c = line * kernels.line_channels;
      for (int64_t half = 0; half < 2; ++half, tile += kernels.tile_bytes) {
        const int64_t row = half * kTileOutputs, outputs = std::clamp<int64_t>(count - row, 0, kTileOutputs);
        kernels.pack_weights(w + (outputs > 0 ? row * stride : 0) + c, stride, 1, static_cast<int>(outputs),
                             static_cast<int>(std::min<int64_t>(kernels.line_channels, d - c)), tile);
      }
    }
  }
  void pack_pair_as_inputs(const float* w, int64_t stride, int64_t count, std::byte* first_tile) const {
    for (int64_t pair = 0; pair < d_pairs; ++pair, first_tile += row_lines * 2 * kernels.tile_bytes) {
      std::byte* tile = first_tile;
      for (int64_t line = 0; line < lines_per_pair(); ++line) {
        const int64_t row = line * kernels.line_channels;
        const int64_t inputs = std::clamp<int64_t>(count - row, 0, kernels.line_channels);
        for (int64_t half = 0; half < 2; ++half, tile += kernels.tile_bytes) {
          const int64_t c = pair * kPairOutputs + half * kTileOutputs;
          if (c >= d) continue;
          kernels.pack_weights(w + (inputs > 0 ? row * stride : 0) + c, 1, stride,
                               static_cast<int>(std::min<int64_t>(kTileOutputs, d - c)), static_cast<int>(inputs),
                               tile);
        }
      }
    }
  }
};

// acc[pixel][32] (+)= pixels x weights for one block of pixels and one pair of output tiles.
inline void multiply(const TileKernels& kernels, const std::byte* lines, int64_t line_stride, int64_t line_count,
                     int64_t pixels, const std::byte* weights, int tiles, float* acc, bool first) {
  DataBlock b{};
  b.lines = lines;
  b.weights = weights;
  b.acc = acc;
  static constexpr int64_t kNoOffset = 0;
  b.tap_offsets = &kNoOffset;
  b.line_stride = line_stride;
  b.taps = 1;
  b.line_count = static_cast<int>(line_count);
  b.pixels = static_cast<int>(pixels);
  b.tiles = tiles;
  b.first = first;
  kernels.multiply(b);
}

}  // namespace attention_detail
}  // namespace depthstill::cpu
