// These functions show how fast this processor can be at most, for judging the kernels: with arithmetic that stays in
// registers, and with a copy.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"

namespace depthstill::cpu {

// Multiply-adds of the kind that our products of T use, on all threads: those of the tile kernels (AMX, for fp32 six
// products each; vdpbf16ps; fp32 FMA of AVX-512 or AVX2), without them FMA of the build's vectors. Returns the
// operations done, two per multiply-add.
template <class T>
double burn_multiply_adds(int64_t iterations);

// to[i] = from[i] on all threads: moves 2 * bytes.
void copy_bytes(void* to, const void* from, int64_t bytes);

}  // namespace depthstill::cpu
