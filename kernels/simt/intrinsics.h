// CUDA's device functions for the emulator; simt.h includes them. There are only those that kernels here use: a missing
// name is a compile error, to be added with CUDA's exact meaning.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/simt/simt.h"

#define SIMT_WHERE ::depthstill::simt::Where where = ::depthstill::simt::Where::current()

// ---- block synchronisation ----------------------------------------------------------------------------------------

inline void __syncthreads(SIMT_WHERE) { depthstill::simt::block_barrier(0, where); }
inline int __syncthreads_count(int predicate, SIMT_WHERE) {
  return depthstill::simt::block_barrier(predicate, where).yes;
}
inline int __syncthreads_or(int predicate, SIMT_WHERE) {
  return depthstill::simt::block_barrier(predicate, where).yes != 0;
}
inline int __syncthreads_and(int predicate, SIMT_WHERE) {
  const depthstill::simt::Votes votes = depthstill::simt::block_barrier(predicate, where);
  return votes.yes == votes.all;
}
// Under TSan a fence is not a barrier, here as on the GPU.
inline void __threadfence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

// ---- warp collectives ---------------------------------------------------------------------------------------------

namespace depthstill::simt {
template <class T>
T shuffle(uint32_t mask, T value, int source_lane, Where where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_exchange(WarpOp::kShuffle, mask, bits, source_lane, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace depthstill::simt

inline void __syncwarp(uint32_t mask = 0xffffffffu, SIMT_WHERE) {
  depthstill::simt::warp_exchange(depthstill::simt::WarpOp::kSync, mask, 0, depthstill::simt::lane(), where);
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, SIMT_WHERE) {
  const int segment = depthstill::simt::lane() & ~(width - 1);
  return depthstill::simt::shuffle(mask, value, segment + (source & (width - 1)), where);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32, SIMT_WHERE) {
  const int self = depthstill::simt::lane(), source = self ^ lane_mask;
  return depthstill::simt::shuffle(mask, value, source < (self & ~(width - 1)) + width ? source : self, where);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, SIMT_WHERE) {
  const int self = depthstill::simt::lane(), source = self + static_cast<int>(delta);
  return depthstill::simt::shuffle(mask, value, source < (self & ~(width - 1)) + width ? source : self, where);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, SIMT_WHERE) {
  const int self = depthstill::simt::lane(), source = self - static_cast<int>(delta);
  return depthstill::simt::shuffle(mask, value, source >= (self & ~(width - 1)) ? source : self, where);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, SIMT_WHERE) {
  return static_cast<uint32_t>(depthstill::simt::warp_exchange(depthstill::simt::WarpOp::kBallot, mask, predicate != 0,
                                                               depthstill::simt::lane(), where));
}
inline int __any_sync(uint32_t mask, int predicate, SIMT_WHERE) { return __ballot_sync(mask, predicate, where) != 0; }
inline int __all_sync(uint32_t mask, int predicate, SIMT_WHERE) {
  return __ballot_sync(mask, predicate, where) == mask;
}
uint32_t __activemask() = delete;  // not a synchronisation primitive: pass the mask down

// ---- atomics: relaxed, device scope, returning the old value ------------------------------------------------------

namespace depthstill::simt {
template <class T, class Combine>
T atomic_update(T* address, Combine combine) {
  T seen, next;
  __atomic_load(address, &seen, __ATOMIC_RELAXED);
  do {
    next = combine(seen);
  } while (!__atomic_compare_exchange(address, &seen, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return seen;
}
template <class T>
concept AtomicInteger = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <class T>
concept AtomicNumber = AtomicInteger<T> || std::is_same_v<T, float>;
}  // namespace depthstill::simt

template <depthstill::simt::AtomicNumber T>
T atomicAdd(T* address, std::type_identity_t<T> v) {
  return depthstill::simt::atomic_update(address, [v](T x) { return static_cast<T>(x + v); });
}
template <depthstill::simt::AtomicInteger T>
T atomicMax(T* address, std::type_identity_t<T> v) {
  return depthstill::simt::atomic_update(address, [v](T x) { return x > v ? x : v; });
}
template <depthstill::simt::AtomicInteger T>
T atomicMin(T* address, std::type_identity_t<T> v) {
  return depthstill::simt::atomic_update(address, [v](T x) { return x < v ? x : v; });
}
template <depthstill::simt::AtomicInteger T>
T atomicOr(T* address, std::type_identity_t<T> v) {
  return depthstill::simt::atomic_update(address, [v](T x) { return x | v; });
}
template <depthstill::simt::AtomicInteger T>
T atomicAnd(T* address, std::type_identity_t<T> v) {
  return depthstill::simt::atomic_update(address, [v](T x) { return x & v; });
}
template <depthstill::simt::AtomicNumber T>
T atomicExch(T* address, std::type_identity_t<T> v) {
  return depthstill::simt::atomic_update(address, [v](T) { return v; });
}
template <depthstill::simt::AtomicInteger T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return depthstill::simt::atomic_update(address, [=](T x) { return x == expected ? v : x; });
}

// ---- memory -------------------------------------------------------------------------------------------------------

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, std::type_identity_t<T> v) {
  *p = v;
}
template <class T>
void __stcg(T* p, std::type_identity_t<T> v) {
  *p = v;
}

// ---- bits and integers --------------------------------------------------------------------------------------------

inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline int __popc(unsigned v) { return std::popcount(v); }
inline int __popcll(unsigned long long v) { return std::popcount(v); }
inline int __clz(int v) { return std::countl_zero(static_cast<unsigned>(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }

// CUDA's min and max, without its mixed-type overloads.
template <class T>
requires std::is_arithmetic_v<T>
constexpr T min(T a, T b) { return b < a ? b : a; }
template <class T>
requires std::is_arithmetic_v<T>
constexpr T max(T a, T b) { return a < b ? b : a; }

// ---- float --------------------------------------------------------------------------------------------------------

inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float __fsqrt_rn(float v) { return std::sqrt(v); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __saturatef(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }
inline int __float2int_rd(float v) { return static_cast<int>(std::floor(v)); }
inline int __float2int_ru(float v) { return static_cast<int>(std::ceil(v)); }
inline int __float2int_rn(float v) { return static_cast<int>(std::nearbyint(v)); }
inline int __float2int_rz(float v) { return static_cast<int>(v); }

// erfcx(x) = exp(x^2) erfc(x), the scaled complementary error function.
inline float erfcxf(float v) {
  const double x = v;
  if (x < 20.0) return static_cast<float>(std::exp(x * x) * std::erfc(x));
  const double u = 0.5 / (x * x);  // asymptotic series; its next term is below 1e-8 from x = 20 on
  return static_cast<float>((1.0 - u + 3.0 * u * u) / (x * 1.7724538509055160273));
}
inline float normcdff(float v) { return static_cast<float>(0.5 * std::erfc(-double{v} * 0.70710678118654752440)); }

// glibc's <math.h> declares these names, without definitions for us to link.
extern "C" {
inline float __expf(float v) noexcept { return std::exp(v); }
inline float __logf(float v) noexcept { return std::log(v); }
inline float __powf(float v, float e) noexcept { return std::pow(v, e); }
inline float __sinf(float v) noexcept { return std::sin(v); }
inline float __cosf(float v) noexcept { return std::cos(v); }
}

#undef SIMT_WHERE
