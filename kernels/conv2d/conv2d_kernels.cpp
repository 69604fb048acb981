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

// fp32 arithmetic on the widest vectors.
template <class T>
const TileKernels* vector_kernels() {
  const TileKernels* avx512 = avx512_kernels<T>();
  return avx512 ? avx512 : avx2_kernels<T>();
}

}  // namespace

template <>
const TileKernels* tile_kernels<float>() {
  const TileKernels* amx = amx_kernels<float>();
  return amx ? amx : vector_kernels<float>();
}

template <>
const TileKernels* tile_kernels<bf16>() {
  if (const TileKernels* amx = amx_kernels<bf16>()) return amx;
  const TileKernels* pairs = bf16_pairs_pay() ? avx512_bf16_kernels() : nullptr;
  return pairs ? pairs : vector_kernels<bf16>();
}

}  // namespace depthstill::cpu
