// The number formats of the simulated libraries: what lies in memory as bf16 or fp32 is computed with as fp32.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/core/bf16.h"

namespace depthstill::simt {

enum class Format : uint8_t { kFloat, kBf16 };

inline int64_t bytes_of(Format format) { return format == Format::kFloat ? 4 : 2; }

inline float load(Format format, const void* from, int64_t index) {
  return format == Format::kFloat ? static_cast<const float*>(from)[index]
                                  : static_cast<float>(static_cast<const bf16*>(from)[index]);
}
inline void store(Format format, void* to, int64_t index, float value) {
  if (format == Format::kFloat)
    static_cast<float*>(to)[index] = value;
  else
    static_cast<bf16*>(to)[index] = bf16(value);
}
inline float rounded(Format format, float value) {
  return format == Format::kFloat ? value : static_cast<float>(bf16(value));
}

// The ten bits of mantissa that tensor cores read of an fp32 factor, to nearest, ties away from zero.
inline float rounded_to_tf32(float value) {
  if (!std::isfinite(value)) return value;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(value) + 0x1000u) & 0xffffe000u);
}

// NaN in every format.
inline void fill_with_nan(void* to, size_t bytes) { std::memset(to, 0xff, bytes); }

inline bool is_aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

}  // namespace depthstill::simt
