// CPU loops over contiguous channels: one body, written for a vector type V, serves whole vectors (V = Lanes) and the
// channels left over (V = float).
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/lanes.h"

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

}  // namespace depthstill::cpu
