// Our own convolutions for the CPU: implicit GEMMs over tiles of 16 outputs, without im2col.
//
// A block of the image is copied once, zero-padded, into "lines": 64 bytes of one pixel (32 bf16 or 16 float channels;
// 192 bytes where 32 floats are stored in three bf16 parts), ordered [channel line][flat pixel]. Flat pixels run over
// the padded rows, so filter tap (r, s) of flat pixel f is line f + r * dilation * pitch + s * dilation: every operand
// of the inner loop is contiguous. The pitch includes the halo columns; results computed there are dropped (data) or
// multiplied by zero gradients (weights). With a stride, the lines of each phase of the image (every stride-th row and
// column) lie together, and a tap reads neighbours in one phase.
//
// The drivers (conv2d_tiles.cpp, conv2d_tiles_grad.cpp) block for the caches and know no instruction set; the kernels
// are AMX (conv2d_amx.cpp for bf16, conv2d_amx_float.cpp for fp32 in three bf16 parts), AVX-512 with vdpbf16ps for bf16
// (conv2d_avx512_bf16.cpp), and AVX-512 or AVX2 with fp32 arithmetic for fp32 or bf16 images (conv2d_avx512.cpp,
// conv2d_avx2.cpp).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "kernels/conv2d/conv2d.h"

namespace depthstill::cpu {

inline constexpr int kTileOutputs = 16;       // outputs of one weight tile
inline constexpr int kPairOutputs = 32;       // the inner loops take tiles in pairs
inline constexpr int64_t kLineBytes = 64;     // one pixel in a channel line
inline constexpr int64_t kTileBytes = 1024;   // 16 outputs x one channel line of weights
inline constexpr int kStepPixels = 32;        // pixels that one step of a weight gradient reduces
inline constexpr int kBlockFloats = 32 * 32;  // accumulators of one block, at most

// acc[i][o] (+)= sum over taps and lines of pixel i's line * weight tile, for block_pixels pixels and 32 outputs.
struct DataBlock {
  const std::byte* lines;      // line of the first pixel
  const std::byte* weights;    // [tap][line][2 tiles]
  float* acc;                  // [block_pixels][32]
  const int64_t* tap_offsets;  // bytes from `lines` to what each tap reads
  int64_t line_stride;         // bytes from a channel line to the next
  int taps, line_count;
  int pixels;  // pixels that matter, <= block_pixels
  int tiles;   // 1 or 2
  bool first;  // assign instead of adding
};

// acc[o][c] (+)= sum over 32 * steps pixels of dy[., o] * x[., c], for at most 32 outputs and 32 channels.
struct WeightBlock {
  const std::byte* dy[2];  // packed gradients of two tiles of 16 outputs
  const std::byte* x[2];   // packed lines of two tiles of 16 channels, at the tap
  float* acc;              // [32][32]
  int64_t steps;
  int dy_tiles, x_tiles;  // 1 or 2
  bool first;
};

// Finished accumulators go here: out[i] is pixel i's place in y, or null for a halo column.
struct StoreBlock {
  const float* acc;  // [count][32]
  void* const* out;
  const float* bias;  // bias of the first output, or null
  int64_t first_output;
  int count;    // pixels
  int outputs;  // <= 32
  Activation act;
};

// The instruction-set dependent part. Functions that pack read `count` pixels through a table of pointers.
struct TileKernels {
  const char* name;
  int line_channels;    // channels in a line
  int block_pixels;     // pixels of a DataBlock
  int element_bytes;    // element of x, y, dy, dx
  int64_t line_bytes;   // one pixel in a channel line (of packed x, one or two pixels): whole kLineBytes
  int64_t tile_bytes;   // 16 outputs x one channel line of weights: whole kTileBytes
  int pixels_per_line;  // pixels of x as packed for weight gradients: 2 where pairs of pixels are interleaved
  int64_t step_bytes;   // bytes of one step of packed dy
  int64_t block_bytes;  // a block's lines: what the L1 cache holds, or more where each is multiplied often enough
  bool stream_weights;  // a block's lines stay in the L1 cache for all outputs, rather than weights for all pixels

  void (*begin)();  // each thread calls these around the functions below
  void (*end)();

  // Packs channels [first, first + channels) of each pixel into lines, the last one zero-filled.
  void (*pack_lines)(const void* const* pixels, int64_t count, int64_t first, int channels, int64_t line_stride,
                     std::byte* lines);
  // Packs one weight tile: w[o * output_stride + c * input_stride]; one of the strides is 1.
  void (*pack_weights)(const float* w, int64_t output_stride, int64_t input_stride, int outputs, int inputs,
                       std::byte* tile);
  void (*multiply)(const DataBlock& block);
  void (*store)(const StoreBlock& block);

  // Weight gradients take 32 * steps pixels of all channels: dy as [tile of 16][step], x as [tile of 16][line] with
  // `tile_stride` bytes between tiles; x with interleaved pairs holds a second copy, shifted by a pixel, at `odd` bytes
  // unless that is 0. x reads one pixel past the last where pairs are interleaved.
  void (*pack_dy)(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, std::byte* out);
  void (*pack_x)(const void* const* pixels, int64_t steps, int channels, int64_t tile_stride, int64_t odd,
                 std::byte* out);
  void (*multiply_weights)(const WeightBlock& block);

  // Products of the same instructions that stay in registers; returns the operations done.
  double (*burn)(int64_t iterations);
  bool stand_in = false;  // in tests: the instructions on bf16 are imitated
};

template <class T>
const TileKernels* amx_kernels();  // null where AMX cannot be used
template <>
const TileKernels* amx_kernels<float>();
template <>
const TileKernels* amx_kernels<bf16>();
const TileKernels* avx512_bf16_kernels();   // null without AVX-512 BF16
const TileKernels* avx512_bf16_stand_in();  // the same code with that instruction imitated; null without AVX-512
template <class T>
const TileKernels* avx512_kernels();  // null without AVX-512
template <class T>
const TileKernels* avx2_kernels();  // null without AVX2
template <class T>
const TileKernels* tile_kernels();  // the fastest usable of them for images of T; null if there is none
template <>
const TileKernels* tile_kernels<float>();
template <>
const TileKernels* tile_kernels<bf16>();

// Output p reads input p * stride - pad + r * dilation at tap r. Input i is in the phase (i + pad) % stride, and only
// phases that a tap reads count: the one of index k is that of tap k, and tap r reads the phase of index r % period.
struct TapAxis {
  int taps, stride, dilation;
  int64_t pad;  // may be negative (cropping)

  int period() const { return stride / std::gcd(stride, dilation); }
  int phases() const { return std::min(taps, period()); }
  int phase(int index) const { return index * dilation % stride; }
  int64_t shift(int tap) const { return int64_t{tap} * dilation / stride; }  // from output p to the place in the phase
  int64_t halo() const { return shift(taps - 1); }
};

// y (N, P, Q, O) from x (N, H, W, C). Where channels are few, the taps of a row can be one, whose pixels are windows of
// x: neighbours in a row, whose channels lie together. C counts all channels of a window.
struct TileGeometry {
  int64_t N, H, W, C, P, Q, O;
  TapAxis rows, columns;
  int window = 1;

  int64_t taps() const { return int64_t{rows.taps} * columns.taps; }
  int64_t phases() const { return int64_t{rows.phases()} * columns.phases(); }
  // Where tap t reads, in flat pixels from the output's own: phases of `phase_pixels`, rows of `pitch`.
  int64_t tap_offset(int64_t t, int64_t phase_pixels, int64_t pitch) const {
    const int r = static_cast<int>(t / columns.taps), s = static_cast<int>(t % columns.taps);
    const int64_t phase = int64_t{r % rows.period()} * columns.phases() + s % columns.period();
    return phase * phase_pixels + rows.shift(r) * pitch + columns.shift(s);
  }
  // A product of matrices: the rows of all images alike.
  bool is_product() const {
    return taps() == 1 && rows.stride == 1 && columns.stride == 1 && rows.pad == 0 && columns.pad == 0 && P == H &&
           Q == W;
  }
  // Windows of a row that reach beyond the image.
  int64_t edge_windows() const {
    int64_t count = 0;
    for (int64_t q = 0; q < Q && window > 1; ++q) {
      const int64_t w = q * columns.stride - columns.pad;
      count += w < 0 || w + window > W;
    }
    return count;
  }
};
// Strided convolutions with few channels become windows.
TileGeometry forward_geometry(const TileKernels& kernels, const Conv2dShape& shape);

// An image as the drivers' tables see it.
struct PixelRows {
  const std::byte* image;
  int64_t height, width, pixel_bytes;  // of the image itself
  int window;
  const std::byte* zeros;  // a window of zeros

  int64_t edge_bytes() const { return (window * pixel_bytes + 63) / 64 * 64; }
  // out[i] is the window at column first + i * step of row h, i < count. Windows beyond the image are zeros; those that
  // reach beyond it are copied to `edges`, edge_bytes() apart.
  void fill(int64_t h, int64_t first, int64_t step, int64_t count, const void** out, std::byte* edges) const;
};

void tiled_forward(const TileKernels& kernels, Stream stream, const Conv2dShape& shape, Activation act, const void* x,
                   const float* weight, const float* bias, void* y);
void tiled_grad_data(const TileKernels& kernels, Stream stream, const Conv2dShape& shape, const void* dz,
                     const float* weight, void* dx);
void tiled_grad_weight(const TileKernels& kernels, Stream stream, const Conv2dShape& shape, const void* x,
                       const void* dz, float* dweight);

}  // namespace depthstill::cpu
