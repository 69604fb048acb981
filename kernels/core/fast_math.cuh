// Exponentials, logarithms and reciprocals as the special function units give them, for kernels that need many.
#pragma once

#include <cmath>

#include "kernels/core/launch.h"

namespace depthstill::cuda {

inline constexpr float kLog2E = 1.44269504f;

// One or two instructions each, where the intrinsics take up to five for the sake of values below 2^-126, which are 0
// here.
#if defined(__CUDACC__)
__device__ __forceinline__ float fast_exp2(float x) {
  asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x;
}
__device__ __forceinline__ float fast_log(float x) {
  asm("lg2.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x * (1.0f / kLog2E);
}
__device__ __forceinline__ float fast_inverse(float x) {
  asm("rcp.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x;
}
#else
inline float fast_exp2(float x) { return exp2f(x); }
inline float fast_log(float x) { return logf(x); }
inline float fast_inverse(float x) { return 1.0f / x; }
#endif
__device__ __forceinline__ float fast_exp(float x) { return fast_exp2(x * kLog2E); }

// The larger and the smaller of two numbers, or NaN if either is: one instruction, where a comparison and a selection
// are two.
#if defined(__CUDACC__)
__device__ __forceinline__ float max_or_nan(float a, float b) {
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(a) : "f"(b));
  return a;
}
__device__ __forceinline__ float min_or_nan(float a, float b) {
  asm("min.NaN.f32 %0, %0, %1;" : "+f"(a) : "f"(b));
  return a;
}
#else
inline float max_or_nan(float a, float b) { return a > b || a != a ? a : b; }
inline float min_or_nan(float a, float b) { return a < b || a != a ? a : b; }
#endif

}  // namespace depthstill::cuda
