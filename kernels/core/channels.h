// CPU loops over contiguous channels: one body, written for a vector type V, serves whole vectors (V = Lanes) and the
// channels left over (V = float).
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/core/lanes.h"

namespace depthstill::cpu {

template <class V, class T>
inline V load(const T* from) {
  if constexpr (std::is_same_v<V, Lanes>) {
    return load_lanes(from);
  } else {
    return static_cast<float>(*from);
  }
}

inline void store(float* to, Lanes value) { store_lanes(to, value); }
inline void store(bf16* to, Lanes value) { store_lanes(to, value); }
inline void store(float* to, float value) { *to = value; }
inline void store(bf16* to, float value) { *to = bf16(value); }

// body.operator()<V>(c) for c in [0, channels): whole vectors first, then single channels.
template <class Body>
inline void for_channels(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) body.template operator()<Lanes>(c);
  for (; c < channels; ++c) body.template operator()<float>(c);
}

// Element-wise loops over floats, which the compiler vectorises where it would not with bf16 in them, take elements in
// blocks of at most kBlock, as floats. `floats` reads them (fp32 in place, bf16 into `room`), `place` says where
// results go, and `finish` rounds what is in `room`.
inline constexpr int64_t kBlock = 256;

inline const float* floats(const float* from, int64_t, float*) { return from; }
inline const float* floats(const bf16* from, int64_t count, float* room) {
  for_channels(count, [&]<class V>(int64_t i) { store(room + i, load<V>(from + i)); });
  return room;
}
inline float* place(float* to, float*) { return to; }
inline float* place(bf16*, float* room) { return room; }
inline void finish(float*, int64_t, const float*) {}
inline void finish(bf16* to, int64_t count, const float* room) {
  for_channels(count, [&]<class V>(int64_t i) { store(to + i, load<V>(room + i)); });
}

// body(first, count) for the blocks of [begin, end).
template <class Body>
inline void for_blocks(int64_t begin, int64_t end, const Body& body) {
  for (int64_t i = begin; i < end; i += kBlock) body(i, end - i < kBlock ? end - i : kBlock);
}

// Sum over a row of what term.operator()<V>(c) returns.
template <class Term>
float sum_channels(int64_t channels, const Term& term) {
  Lanes lanes{};
  float rest = 0.0f;
  for_channels(channels, [&]<class V>(int64_t c) {
    if constexpr (std::is_same_v<V, Lanes>) {
      lanes += term.template operator()<V>(c);
    } else {
      rest += term.template operator()<V>(c);
    }
  });
  for (int i = 0; i < kLanes; ++i) rest += lanes[i];
  return rest;
}

}  // namespace depthstill::cpu
