// Vector access: a Pack is loaded and stored by one instruction of up to 16 bytes per thread (LDG.128 / STG.128).
// Its address must be a multiple of its size; `packable` tells a launcher whether it may use packs.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/core/bf16.h"
#include "kernels/core/launch.h"

namespace depthstill {

template <class T, int N = static_cast<int>(16 / sizeof(T))>
struct alignas(sizeof(T) * N) Pack {
  static_assert(N > 0 && (N & (N - 1)) == 0 && sizeof(T) * N <= 16, "a pack has 2^k elements and at most 16 bytes");
  static constexpr int kSize = N;
  T lane[N];
};

// Elements of T in 16 bytes.
template <class T>
inline constexpr int kPackSize = Pack<T>::kSize;

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <class T, int N>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Two neighbours share a word, the first in its lower half. One instruction rounds both, where bf16(float) is six; as
// floats again they take one each.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#if defined(__CUDACC__)
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return static_cast<uint32_t>(bf16(low).bits) | static_cast<uint32_t>(bf16(high).bits) << 16;
#endif
}
__device__ __forceinline__ float bf16_low(uint32_t word) { return std::bit_cast<float>(word << 16); }
__device__ __forceinline__ float bf16_high(uint32_t word) { return std::bit_cast<float>(word & 0xffff0000u); }

// N elements are kept as words between a load and their use: a Pack in registers is taken apart into halves of words.
template <class T, int N>
using Words =
    std::conditional_t<sizeof(T) * N % 4 == 0, Pack<uint32_t, static_cast<int>((sizeof(T) * N + 3) / 4)>, Pack<T, N>>;

template <int N, class T>
__device__ __forceinline__ Words<T, N> load_words(const T* from) {
  return std::bit_cast<Words<T, N>>(load_pack<N>(from));
}
template <int N, class T>
__device__ __forceinline__ void store_words(T* to, const Words<T, N>& words) {
  store_pack(to, std::bit_cast<Pack<T, N>>(words));
}

template <class T, int N>
__device__ __forceinline__ void to_floats(const Words<T, N>& words, float (&values)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if constexpr (std::is_same_v<T, bf16> && N % 2 == 0) {
      values[i] = i % 2 == 0 ? bf16_low(words.lane[i / 2]) : bf16_high(words.lane[i / 2]);
    } else if constexpr (std::is_same_v<T, float>) {
      values[i] = std::bit_cast<float>(words.lane[i]);
    } else {
      values[i] = static_cast<float>(words.lane[i]);
    }
  }
}

template <class T, int N>
__device__ __forceinline__ Words<T, N> to_words(const float (&values)[N]) {
  Words<T, N> words;
  if constexpr (std::is_same_v<T, bf16> && N % 2 == 0) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) words.lane[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
  } else if constexpr (std::is_same_v<T, float>) {
#pragma unroll
    for (int i = 0; i < N; ++i) words.lane[i] = std::bit_cast<uint32_t>(values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) words.lane[i] = static_cast<T>(values[i]);
  }
  return words;
}

// N elements as floats, which is what kernels compute with.
template <int N, class T>
__device__ __forceinline__ void load_floats(const T* from, float (&values)[N]) {
  to_floats<T>(load_words<N>(from), values);
}
template <int N, class T>
__device__ __forceinline__ void store_floats(T* to, const float (&values)[N]) {
  store_words<N>(to, to_words<T>(values));
}

// Parameters and their gradients, which are float whatever T is: N of them, four at a time, from an array aligned to 16
// bytes, or for N < 4 to N floats.
template <int N>
__device__ __forceinline__ void load_parameters(const float* from, float (&values)[N]) {
  constexpr int kPart = N < 4 ? N : 4;
#pragma unroll
  for (int i = 0; i < N; i += kPart) {
    const Pack<float, kPart> part = load_pack<kPart>(from + i);
#pragma unroll
    for (int k = 0; k < kPart; ++k) values[i + k] = part.lane[k];
  }
}
template <int N>
__device__ __forceinline__ void store_parameters(float* to, const float (&values)[N]) {
  constexpr int kPart = N < 4 ? N : 4;
#pragma unroll
  for (int i = 0; i < N; i += kPart) {
    Pack<float, kPart> part;
#pragma unroll
    for (int k = 0; k < kPart; ++k) part.lane[k] = values[i + k];
    store_pack(to + i, part);
  }
}

// True when `count` (a row length, or the whole array) divides into packs of N and every pointer is aligned to one.
// Null pointers (optional arrays) are fine.
template <int N, class... T>
bool packable(int64_t count, const T*... pointers) {
  return count % N == 0 && ((reinterpret_cast<uintptr_t>(pointers) % (sizeof(T) * N) == 0) && ...);
}

// Calls f.operator()<kWide>() where packs are possible, else f.operator()<1>().
template <int kWide, class F>
void visit_pack(bool possible, const F& f) {
  if (possible) {
    f.template operator()<kWide>();
  } else {
    f.template operator()<1>();
  }
}

}  // namespace depthstill
