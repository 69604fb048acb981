// AVX-512 kernels of the tiled convolutions for bf16 images, with vdpbf16ps on the operands that the AMX kernels read:
// two multiply-adds where fp32 has one.
#include "kernels/conv2d/conv2d_avx512.h"
#include "kernels/conv2d/conv2d_bf16.h"

namespace depthstill::cpu {

#if defined(__x86_64__)
namespace {

using namespace simd;

// Packed dy is [step][16 outputs][16 pixel pairs].
template <class Instructions>
struct Bf16Math : Instructions {
  static constexpr int kOperations = 4;
  static constexpr int kInputs = kStepPixels / 2, kStep = 16 * kInputs, kInputStride = 1, kOutputStride = kInputs;
};

template <class Instructions, bool stand_in>
constexpr TileKernels kKernels = {
    .name = stand_in ? "avx512, vdpbf16ps imitated" : "avx512, vdpbf16ps",
    .line_channels = kBf16LineChannels,
    .block_pixels = avx512::kPixels,
    .element_bytes = sizeof(bf16),
    .line_bytes = kLineBytes,
    .tile_bytes = kTileBytes,
    .pixels_per_line = 2,
    .step_bytes = kTileBytes,
    .block_bytes = 32 << 10,
    .stream_weights = false,
    .begin = avx512::nothing,
    .end = avx512::nothing,
    .pack_lines = pack_bf16_lines,
    .pack_weights = pack_bf16_weights<Instructions>,
    .multiply = avx512::multiply<Bf16Math<Instructions>>,
    .store = store_block<bf16>,
    .pack_dy = pack_bf16_dy,
    .pack_x = pack_bf16_x,
    .multiply_weights = avx512::multiply_weights<Bf16Math<Instructions>>,
    .burn = avx512::burn<Bf16Math<Instructions>>,
    .stand_in = stand_in,
};

}  // namespace

const TileKernels* avx512_bf16_kernels() {
  static const bool usable = avx512_kernels<bf16>() && __builtin_cpu_supports("avx512bf16");
  return usable ? &kKernels<Bf16Instructions, false> : nullptr;
}
const TileKernels* avx512_bf16_stand_in() { return avx512_kernels<bf16>() ? &kKernels<Bf16Imitation, true> : nullptr; }
#else
const TileKernels* avx512_bf16_kernels() { return nullptr; }
const TileKernels* avx512_bf16_stand_in() { return nullptr; }
#endif

}  // namespace depthstill::cpu
