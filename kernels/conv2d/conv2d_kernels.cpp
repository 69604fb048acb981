// The choice of tile kernels by processor.
#include "kernels/conv2d/conv2d_tiles.h"

namespace depthstill::cpu {
namespace {

// vdpbf16ps runs on both arithmetic ports of Zen 4 and later. Intel's processors that have it, but no AMX, run it on
// one of two: fp32 arithmetic on widened images is as fast there and rounds less.
bool bf16_pairs_pay() {
#if defined(__x86_64__)
  static const bool amd = __builtin_cpu_is("amd");
  return amd;
#else
  return false;
#endif
}

}  // namespace

template <>
const TileKernels* tile_kernels<float>() {
  const TileKernels* amx = amx_kernels<float>();
  return amx ? amx : avx512_kernels<float>();
}

template <>
const TileKernels* tile_kernels<bf16>() {
  if (const TileKernels* amx = amx_kernels<bf16>()) return amx;
  const TileKernels* pairs = bf16_pairs_pay() ? avx512_bf16_kernels() : nullptr;
  return pairs ? pairs : avx512_kernels<bf16>();
}

}  // namespace depthstill::cpu
