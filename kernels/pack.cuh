// Vector access: a Pack is loaded and stored by one instruction of up to 16 bytes per thread (LDG.128 / STG.128).
// Its address must be a multiple of its size; `packable` tells a launcher whether it may use packs.
#pragma once

#include "kernels/bf16.h"
#include "kernels/launch.h"

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

// N elements as floats, which is what kernels compute with.
template <int N, class T>
__device__ __forceinline__ void load_floats(const T* from, float (&values)[N]) {
  const Pack<T, N> pack = load_pack<N>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = static_cast<float>(pack.lane[i]);
}

template <int N, class T>
__device__ __forceinline__ void store_floats(T* to, const float (&values)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.lane[i] = static_cast<T>(values[i]);
  store_pack(to, pack);
}

// True when `count` (a row length, or the whole array) divides into packs of N and every pointer is aligned to one.
// Null pointers (optional arrays) are fine.
template <int N, class... T>
bool packable(int64_t count, const T*... pointers) {
  return count % N == 0 && ((reinterpret_cast<uintptr_t>(pointers) % (sizeof(T) * N) == 0) && ...);
}

}  // namespace depthstill
