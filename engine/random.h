// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). A number depends only on (seed, stream, position), never on a thread or on what was drawn
// before, so results repeat whatever the order of work, and a checkpoint needs three integers.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

#include "kernels/core/error.h"

namespace depthstill {

// The bijection itself: ten rounds.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0], product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// A RandomUse says what a stream is used for; different uses never share numbers.
enum class RandomUse : uint8_t { kInitialise = 1, kShuffle, kAugment, kSynthesize, kOther, kTeacher, kRegion };

// One stream per (use, epoch or group < 2^24, index < 2^32).
inline uint64_t stream_id(RandomUse use, int64_t group = 0, int64_t index = 0) {
  check(group >= 0 && group < int64_t{1} << 24 && index >= 0 && index < int64_t{1} << 32,
        "stream_id: expected a group below 2^24 and an index below 2^32, got ", group, " and ", index);
  return static_cast<uint64_t>(use) << 56 | static_cast<uint64_t>(group) << 32 | static_cast<uint64_t>(index);
}

class Philox {
 public:
  explicit Philox(uint64_t seed, uint64_t stream = 0, uint64_t position = 0)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}, stream_(stream), position_(position) {}

  uint64_t position() const { return position_; }  // number of 32-bit numbers drawn

  uint32_t bits() {
    const uint64_t block = position_ / 4;
    if (block != block_ || !filled_) {
      numbers_ = philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                             static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                            key_);
      block_ = block;
      filled_ = true;
    }
    return numbers_[static_cast<size_t>(position_++ % 4)];
  }

  // A number in [0, 1) with 53 bits, from two draws.
  double uniform() {
    const uint64_t high = bits(), low = bits();
    return static_cast<double>((high << 32 | low) >> 11) * 0x1p-53;
  }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }

  // A normal number, mean 0, variance 1 (Box-Muller, one of the pair, so that a draw always takes the same number of
  // bits).
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

  // A number in [0, n), unbiased (Lemire's rejection).
  uint32_t below(uint32_t n) {
    check(n > 0, "below: expected n > 0");
    const uint32_t threshold = (0u - n) % n;
    for (;;) {
      const uint64_t product = uint64_t{bits()} * n;
      if (static_cast<uint32_t>(product) >= threshold) return static_cast<uint32_t>(product >> 32);
    }
  }

  // 0 .. n - 1 in random order (Fisher-Yates).
  std::vector<int64_t> permutation(int64_t n) {
    check(n >= 0 && n < int64_t{1} << 32, "permutation: expected 0 <= n < 2^32, got ", n);
    std::vector<int64_t> order(static_cast<size_t>(n));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[below(static_cast<uint32_t>(i))]);
    return order;
  }

 private:
  std::array<uint32_t, 2> key_;
  uint64_t stream_, position_;
  uint64_t block_ = 0;
  bool filled_ = false;
  std::array<uint32_t, 4> numbers_{};
};

}  // namespace depthstill
