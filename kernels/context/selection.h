// Selection of order statistics by counting: the k-th smallest of floats in three passes of 11 bits, several at once,
// without sorting. Integers count, so the result is exact and the same in any order and on any device.
//   key(v)  = ~bits(v + 0) if v < 0, else bits(v + 0) | 2^31: ordered as floats are; + 0 makes -0 and 0 one value
//   A pass counts the digits (key - low) >> shift of the keys in a selection's interval [low, high], where shift leaves
//   11 bits; the digit that holds the wanted rank is the next interval. From 32 bits three passes end with low = high.
// A `Wanted` says what is selected from a map: which of its leaves a pixel is in (kLeaves: in none), which selections
// want that leaf, the rank in a selection of n keys (from 0; -1: nothing), and the interval to start from.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/context/contexts.h"

namespace depthstill {

inline constexpr int kDigitBits = 11, kDigits = 1 << kDigitBits, kSelectionPasses = 3;

DS_HOST_DEVICE inline uint32_t key_of(float v) {
  const auto bits = std::bit_cast<uint32_t>(v + 0.0f);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}
DS_HOST_DEVICE inline float value_of(uint32_t key) {
  return std::bit_cast<float>(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}

// Least and greatest key of a map's counted pixels, and their number. Starts from zeros.
struct KeyBounds {
  uint32_t low_complement, high, n;
};

struct Selection {
  uint32_t low, high;    // interval that holds the wanted key
  int32_t n, rank;       // keys, and the wanted one's rank; n is known after the first pass
  int32_t below, equal;  // keys below and within the interval

  DS_HOST_DEVICE static Selection from(const KeyBounds& bounds) {
    return {~bounds.low_complement, bounds.high, 0, 0, 0, 0};
  }

  DS_HOST_DEVICE int shift() const {
    const int bits = 32 - std::countl_zero(high - low);
    return bits > kDigitBits ? bits - kDigitBits : 0;
  }
  // Keys above `low` by less than this are still to be counted: 0 where the key is found.
  DS_HOST_DEVICE uint32_t width() const { return rank < 0 || low == high ? 0 : high - low + 1; }
  DS_HOST_DEVICE uint32_t digit(uint32_t key) const { return (key - low) >> shift() & (kDigits - 1); }
  // The wanted key has this digit, `before` keys of the interval have a smaller one.
  DS_HOST_DEVICE void choose(uint32_t digit, int32_t before, int32_t count) {
    const int s = shift();
    below += before;
    equal = count;
    low += digit << s;
    const uint32_t last = low + ((1u << s) - 1);
    high = last < high ? last : high;
  }
};

// The medians of all contexts of a tree.
template <class Tree>
struct WantedMedians {
  static constexpr int kLeaves = Tree::kLeaves, kSelections = Tree::kContexts, kLevels = kContextLevels;
  DS_HOST_DEVICE static int leaf(float, uint8_t leaf) { return leaf < kLeaves ? leaf : kLeaves; }
  DS_HOST_DEVICE static int selection(int leaf, int level) { return Tree::context(leaf, level); }
  DS_HOST_DEVICE static LeafRange leaves(int selection) { return Tree::leaves(selection); }
  DS_HOST_DEVICE int32_t rank(int, int32_t n) const { return n > 0 ? (n - 1) / 2 : -1; }
  DS_HOST_DEVICE static KeyBounds bounds(const KeyBounds& of_map) { return of_map; }
};

// One leaf, and all selections want it.
struct OneLeaf {
  static constexpr int kLeaves = 1;
  DS_HOST_DEVICE static LeafRange leaves(int) { return {0, 1}; }
};

// The borders between quarters of the finite values of y.
struct WantedQuartiles : OneLeaf {
  static constexpr int kSelections = 3, kLevels = 3;
  DS_HOST_DEVICE static int leaf(float y, uint8_t) { return is_finite(y) ? 0 : 1; }
  DS_HOST_DEVICE static int selection(int leaf, int level) { return leaf == 0 ? level : kSelections; }
  DS_HOST_DEVICE static KeyBounds bounds(const KeyBounds& of_map) { return of_map; }
  DS_HOST_DEVICE int32_t rank(int selection, int32_t n) const {
    return n > 0 ? static_cast<int32_t>((static_cast<int64_t>(selection + 1) * (n - 1) + 3) / 4) : -1;
  }
};

// The greatest loss that is not trimmed: of n losses the floor(trim n) greatest are dropped. Below 0: not counted.
struct WantedBorder : OneLeaf {
  double trim = 0;
  static constexpr int kSelections = 1, kLevels = 1;
  DS_HOST_DEVICE static int leaf(float loss, uint8_t) { return loss < 0.0f ? 1 : 0; }
  DS_HOST_DEVICE static int selection(int leaf, int) { return leaf; }
  DS_HOST_DEVICE int32_t rank(int, int32_t n) const { return n - static_cast<int32_t>(trim * n) - 1; }
  DS_HOST_DEVICE static KeyBounds bounds(const KeyBounds&) { return {~key_of(0.0f), 0xffffffffu, 0}; }
};

}  // namespace depthstill
