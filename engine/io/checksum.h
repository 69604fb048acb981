// A 64-bit checksum at the speed of memory, against damaged files (not against forgery).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace depthstill {

// The bytes are read as 16 lanes of little-endian 64-bit words, the last block padded with zeros. Lane i, which starts
// at seed + i, takes each of its words in the round of xxHash:
//   lane = rotate(lane + word * P, 31) * Q,  P = 0xC2B2AE3D27D4EB4F,  Q = 0x9E3779B185EBCA87
// The number of bytes then takes the lanes one after another in the same way. Any change within one word changes the
// result.
uint64_t checksum64(std::span<const std::byte> bytes, uint64_t seed = 0);

}  // namespace depthstill
