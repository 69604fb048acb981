// AMX kernels of the tiled convolutions, bf16 images: a step of four tile loads (16 lines each) feeds four products of
// 16 x 16 x 32.
// Data: rows of A are the lines of 16 consecutive flat pixels, B is a weight tile. Weights: A is dy, B is x.
#include "kernels/conv2d/conv2d_amx.h"

#include "kernels/conv2d/conv2d_bf16.h"
#include "kernels/core/amx.h"

namespace depthstill::cpu {

#if defined(__x86_64__) && defined(__linux__)
namespace {

using namespace amx;
using namespace simd;

struct Bf16Format {
  static constexpr int64_t kLine = kLineBytes, kTile = kTileBytes;

  template <int rows, int columns>
  DS_AMX_INLINE static void data_step(const Operand& a, const Operand& b) {
    _tile_loadd(6, b.first, kLineBytes);
    _tile_loadd(4, a.first, kLineBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (columns == 2) {
      _tile_loadd(7, b.second, kLineBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (rows == 2) {
      _tile_loadd(5, a.second, kLineBytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (columns == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  template <int rows, int columns>
  DS_AMX_INLINE static void weight_step(const Operand& dy, const Operand& x) {
    data_step<rows, columns>(dy, x);
  }
};

constexpr TileKernels kKernels = {
    .name = "amx",
    .line_channels = kBf16LineChannels,
    .block_pixels = 32,
    .element_bytes = sizeof(bf16),
    .line_bytes = kLineBytes,
    .tile_bytes = kTileBytes,
    .pixels_per_line = 2,
    .step_bytes = kTileBytes,
    .block_bytes = 32 << 10,
    .stream_weights = true,
    .begin = begin_tiles,
    .end = end_tiles,
    .pack_lines = pack_bf16_lines,
    .pack_weights = pack_bf16_weights<Bf16Instructions>,
    .multiply = amx::multiply<Bf16Format>,
    .store = store_block<bf16>,
    .pack_dy = pack_bf16_dy,
    .pack_x = pack_bf16_x,
    .multiply_weights = amx::multiply_weights<Bf16Format>,
    .burn = amx::burn<1>,
};

}  // namespace

template <>
const TileKernels* amx_kernels<bf16>() {
  return amx_usable() ? &kKernels : nullptr;
}
#else
template <>
const TileKernels* amx_kernels<bf16>() {
  return nullptr;
}
#endif

}  // namespace depthstill::cpu
