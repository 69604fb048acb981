#include "engine/io/checksum.h"

#include <bit>
#include <cstring>

namespace depthstill {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kWordFactor = 0xC2B2AE3D27D4EB4F, kLaneFactor = 0x9E3779B185EBCA87;
constexpr size_t kLanes = 16;  // enough independent products to hide their latency
constexpr size_t kBlock = kLanes * sizeof(uint64_t);

uint64_t mix(uint64_t lane, uint64_t word) { return std::rotl(lane + word * kWordFactor, 31) * kLaneFactor; }

void add_block(uint64_t (&lanes)[kLanes], const std::byte* block) {
  uint64_t words[kLanes];
  std::memcpy(words, block, kBlock);
  for (size_t i = 0; i < kLanes; ++i) lanes[i] = mix(lanes[i], words[i]);
}

}  // namespace

uint64_t checksum64(std::span<const std::byte> bytes, uint64_t seed) {
  uint64_t lanes[kLanes];
  for (size_t i = 0; i < kLanes; ++i) lanes[i] = seed + i;
  const size_t whole = bytes.size() / kBlock * kBlock;
  for (size_t at = 0; at < whole; at += kBlock) add_block(lanes, bytes.data() + at);
  if (whole < bytes.size()) {
    std::byte last[kBlock] = {};
    std::memcpy(last, bytes.data() + whole, bytes.size() - whole);
    add_block(lanes, last);
  }
  uint64_t sum = bytes.size();
  for (const uint64_t lane : lanes) sum = mix(sum, lane);
  return sum;
}

}  // namespace depthstill
