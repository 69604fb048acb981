// y = x in another element type: float -> bf16 rounds to nearest even, bf16 -> float is exact. The gradient casts back.
// Bound: memory. 6 bytes per element.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {
namespace cpu {
template <class From, class To>
void cast(Stream stream, int64_t n, const From* x, To* y);
}
namespace cuda {
template <class From, class To>
void cast(Stream stream, int64_t n, const From* x, To* y);
}
}  // namespace depthstill
