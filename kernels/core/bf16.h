// bfloat16 as a storage type: arithmetic is always done in float. Same bits on CPU, in the emulator and on the GPU.
#pragma once

#include <bit>
#include <cstdint>

#if defined(__CUDACC__)
#define DS_HOST_DEVICE __host__ __device__
#else
#define DS_HOST_DEVICE
#endif

namespace depthstill {

struct bf16 {
  uint16_t bits;

  bf16() = default;
  // Rounds to nearest even; NaN stays NaN (quiet).
  DS_HOST_DEVICE explicit bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
  }
  DS_HOST_DEVICE explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

}  // namespace depthstill
