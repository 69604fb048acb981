// y = a + b, element by element; y may be a or b.
// Bound: memory. Elements moved: 3.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {
namespace cpu {
template <class T>
void add(Stream stream, int64_t n, const T* a, const T* b, T* y);
}
namespace cuda {
template <class T>
void add(Stream stream, int64_t n, const T* a, const T* b, T* y);
}
}  // namespace depthstill
