// A hash of two integers in [-1, 1), which any language can repeat: published code has given numbers for weights,
// images and maps that are made of it.
#pragma once

#include <cstdint>

namespace depthstill::test {

inline double hash_uniform(uint32_t t, uint32_t i) {
  uint32_t x = i * 2654435761u + t * 40503u + 12345u;
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  return static_cast<double>(x) / 4294967296.0 * 2.0 - 1.0;
}

}  // namespace depthstill::test
