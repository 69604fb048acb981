// The passes of selection.h on the CPU, by one thread over one map.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels/context/selection.h"
#include "kernels/core/lanes.h"

namespace depthstill::cpu {

inline constexpr int64_t kSelectBlock = 256;  // pixels whose counters are found before any of them is counted

// key_of() of each lane.
inline LaneBits keys_of(Lanes v) {
  const auto bits = std::bit_cast<LaneInts>(v + 0.0f);
  return std::bit_cast<LaneBits>(bits ^ ((bits >> 31) | std::numeric_limits<int32_t>::min()));
}

// Counters that select() needs.
template <class Wanted>
constexpr int64_t select_counters() {
  return static_cast<int64_t>(std::max(Wanted::kLeaves + 1, Wanted::kSelections)) * kDigits;
}

// Each selection takes the digit that holds its rank among the counters of its leaves (first pass) or its own.
template <class Wanted>
void choose_digits(const Wanted& wanted, bool first, const uint32_t* counters, Selection* selections) {
  for (int u = 0; u < Wanted::kSelections; ++u) {
    Selection& selection = selections[u];
    const auto [begin, end] = first ? wanted.leaves(u) : LeafRange{u, u + 1};
    uint32_t digits[kDigits] = {};
    for (int row = begin; row < end; ++row) {
      const uint32_t* from = counters + row * kDigits;
      for (int d = 0; d < kDigits; ++d) digits[d] += from[d];
    }
    if (first) {
      uint32_t n = 0;
      for (const uint32_t count : digits) n += count;
      selection.n = static_cast<int32_t>(n);
      selection.rank = wanted.rank(u, selection.n);
    } else if (selection.width() == 0) {
      continue;
    }
    if (selection.rank < 0) continue;
    auto left = static_cast<uint32_t>(selection.rank - selection.below);
    uint32_t digit = 0, before = 0;
    for (; digit + 1 < kDigits && before + digits[digit] <= left; ++digit) before += digits[digit];
    selection.choose(digit, static_cast<int32_t>(before), static_cast<int32_t>(digits[digit]));
  }
}

// Wanted::leaf() of each lane, from values and stored leaves.
template <class Tree>
LaneInts leaves_of(const WantedMedians<Tree>&, Lanes, LaneInts leaf) {
  return leaf < Tree::kLeaves ? leaf : LaneInts{} + Tree::kLeaves;
}
inline LaneInts leaves_of(const WantedQuartiles&, Lanes y, LaneInts) { return 1 + finite_lanes(y); }
inline LaneInts leaves_of(const WantedBorder&, Lanes loss, LaneInts) { return -(loss < 0.0f); }

// A block of a map: keys, leaves, and the counters of the first digit.
template <class Wanted>
struct SelectBlock {
  uint32_t key[kSelectBlock], first[kSelectBlock];
  int32_t leaf[kSelectBlock];

  void load(const Wanted& wanted, const Selection& start, const float* v, const uint8_t* leaves, int64_t count) {
    const uint32_t low = start.low;
    const int shift = start.shift();
    for (int64_t i = 0; i < count; i += kLanes) {
      const int64_t lanes = std::min<int64_t>(kLanes, count - i);
      const Lanes value = load_first(v + i, lanes);
      const LaneInts stored = leaves != nullptr ? load_first(leaves + i, lanes, kNotCounted) : LaneInts{};
      const LaneInts in = leaves_of(wanted, value, stored);
      const LaneBits keys = keys_of(value);
      const LaneBits digits = (keys - low) >> shift & (kDigits - 1);
      std::memcpy(key + i, &keys, sizeof(keys));
      std::memcpy(leaf + i, &in, sizeof(in));
      const LaneBits counters = std::bit_cast<LaneBits>(in) * kDigits + digits;
      std::memcpy(first + i, &counters, sizeof(counters));
    }
  }
};

// What the passes behind the first look at: the keys whose first digit is in an interval still to be divided. Few are,
// unless a map has few values.
template <class Wanted>
struct OpenIntervals {
  uint8_t open[(Wanted::kLeaves + 1) * kDigits] = {};
  uint32_t low[Wanted::kSelections], width[Wanted::kSelections], shift[Wanted::kSelections];
  bool any = false;

  OpenIntervals(const Wanted& wanted, const Selection& start, const Selection* selections) {
    for (int u = 0; u < Wanted::kSelections; ++u) {
      low[u] = selections[u].low;
      width[u] = selections[u].width();
      shift[u] = static_cast<uint32_t>(selections[u].shift());
      any = any || width[u] != 0;
    }
    for (int leaf = 0; leaf < Wanted::kLeaves; ++leaf) {
      for (int level = 0; level < Wanted::kLevels; ++level) {
        const int u = wanted.selection(leaf, level);
        if (width[u] != 0) open[static_cast<uint32_t>(leaf) * kDigits + start.digit(low[u])] = 1;
      }
    }
  }

  void count(const Wanted& wanted, const SelectBlock<Wanted>& block, int64_t pixels, uint32_t* counters) const {
    int32_t listed[kSelectBlock];
    int64_t found = 0;
    for (int64_t i = 0; i < pixels; ++i) {
      listed[found] = static_cast<int32_t>(i);
      found += open[block.first[i]];
    }
    for (int64_t k = 0; k < found; ++k) {
      const int32_t i = listed[k];
      for (int level = 0; level < Wanted::kLevels; ++level) {
        const int u = wanted.selection(block.leaf[i], level);
        const uint32_t d = block.key[i] - low[u];
        if (d < width[u]) ++counters[static_cast<uint32_t>(u) * kDigits + (d >> shift[u])];
      }
    }
  }
};

// counters: select_counters(). Assigns selections (kSelections); `bounds` hold the keys that are in a leaf.
template <class Wanted>
void select(const Wanted& wanted, int64_t pixels, const float* v, const uint8_t* leaves, const KeyBounds& bounds,
            uint32_t* counters, Selection* selections) {
  const Selection start = Selection::from(wanted.bounds(bounds));
  SelectBlock<Wanted> block;
  const auto for_each_block = [&](const auto& body) {
    for (int64_t begin = 0; begin < pixels; begin += kSelectBlock) {
      const int64_t count = std::min(kSelectBlock, pixels - begin);
      block.load(wanted, start, v + begin, leaves != nullptr ? leaves + begin : nullptr, count);
      body(count);
    }
  };
  std::fill_n(selections, Wanted::kSelections, start);
  std::fill_n(counters, (Wanted::kLeaves + 1) * kDigits, 0u);
  for_each_block([&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) ++counters[block.first[i]];  // pixels without a leaf have a row of their own
  });
  choose_digits(wanted, true, counters, selections);
  for (int pass = 1; pass < kSelectionPasses; ++pass) {
    const OpenIntervals<Wanted> intervals(wanted, start, selections);
    if (!intervals.any) return;
    std::fill_n(counters, Wanted::kSelections * kDigits, 0u);
    for_each_block([&](int64_t count) { intervals.count(wanted, block, count, counters); });
    choose_digits(wanted, false, counters, selections);
  }
}

}  // namespace depthstill::cpu
