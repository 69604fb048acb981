// y = factor * x, element by element; y may be x. The gradient is the same function of dy.
// Bound: memory. Elements moved: 2.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {
namespace cpu {
template <class T>
void scale(Stream stream, int64_t n, float factor, const T* x, T* y);
}
namespace cuda {
template <class T>
void scale(Stream stream, int64_t n, float factor, const T* x, T* y);
}
}  // namespace depthstill
