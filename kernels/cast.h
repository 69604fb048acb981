// y = x in another element type: float -> bf16 rounds to nearest even, bf16 -> float is exact. The gradient casts back.
// Bound: memory. 6 bytes per element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/core/bf16.h"
#include "kernels/core/rounded_copies.h"
#include "kernels/core/stream.h"

namespace depthstill {
namespace cpu {
template <class From, class To>
void cast(Stream stream, int64_t n, const From* x, To* y);
}
namespace cuda {
template <class From, class To>
void cast(Stream stream, int64_t n, const From* x, To* y);

// n parameters as T: themselves in fp32; in bf16 their copy, if somebody keeps one, else rounded into `room`, which has
// to have rounded_bytes, a multiple of 256.
template <class T>
size_t rounded_bytes(int64_t n) {
  return std::is_same_v<T, float> ? 0 : (static_cast<size_t>(n) * sizeof(T) + 255) / 256 * 256;
}
template <class T>
const void* rounded(Stream stream, int64_t n, const float* parameters, char* room) {
  if constexpr (std::is_same_v<T, float>) {
    return parameters;
  } else {
    if (const T* copy = rounded_copy(parameters, n)) return copy;
    cast<float, T>(stream, n, parameters, reinterpret_cast<T*>(room));
    return room;
  }
}
}  // namespace cuda
}  // namespace depthstill
