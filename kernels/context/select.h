// The passes of selection.h on the CPU, by one thread over one map.
#pragma once

#include <algorithm>

#include "kernels/context/selection.h"

namespace depthstill::cpu {

inline constexpr int64_t kSelectBlock = 256;  // pixels whose counters are found before any of them is counted

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

// counters: select_counters(). Assigns selections (kSelections); `bounds` hold the keys that are in a leaf.
template <class Wanted>
void select(const Wanted& wanted, int64_t pixels, const float* v, const uint8_t* leaves, const KeyBounds& bounds,
            uint32_t* counters, Selection* selections) {
  constexpr int kSelections = Wanted::kSelections;
  uint32_t at[kSelectBlock], key[kSelectBlock];
  int32_t leaf[kSelectBlock];
  const auto load = [&](int64_t begin, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      key[i] = key_of(v[begin + i]);
      leaf[i] = wanted.leaf(v[begin + i], leaves != nullptr ? leaves[begin + i] : uint8_t{0});
    }
  };
  std::fill_n(selections, kSelections, Selection::from(wanted.bounds(bounds)));
  std::fill_n(counters, Wanted::kLeaves * kDigits, 0u);
  const uint32_t first_low = selections[0].low;
  const int first_shift = selections[0].shift();
  for (int64_t begin = 0; begin < pixels; begin += kSelectBlock) {
    const int64_t count = std::min(kSelectBlock, pixels - begin);
    load(begin, count);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      at[i] = static_cast<uint32_t>(leaf[i]) * kDigits + ((key[i] - first_low) >> first_shift & (kDigits - 1));
    }
    for (int64_t i = 0; i < count; ++i) ++counters[at[i]];  // pixels without a leaf have a row of their own
  }
  choose_digits(wanted, true, counters, selections);

  for (int pass = 1; pass < kSelectionPasses; ++pass) {
    uint32_t low[kSelections + 1] = {}, width[kSelections + 1] = {}, shift[kSelections + 1] = {};
    bool open = false;
    for (int u = 0; u < kSelections; ++u) {
      low[u] = selections[u].low;
      width[u] = selections[u].width();
      shift[u] = static_cast<uint32_t>(selections[u].shift());
      open = open || width[u] != 0;
    }
    if (!open) return;
    constexpr uint32_t kOutside = 0xffffffffu;
    std::fill_n(counters, kSelections * kDigits, 0u);
    for (int64_t begin = 0; begin < pixels; begin += kSelectBlock) {
      const int64_t count = std::min(kSelectBlock, pixels - begin);
      load(begin, count);
      for (int level = 0; level < Wanted::kLevels; ++level) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
          const int u = wanted.selection(leaf[i], level);
          const uint32_t d = key[i] - low[u];
          at[i] = d < width[u] ? static_cast<uint32_t>(u) * kDigits + (d >> shift[u]) : kOutside;
        }
        int64_t inside = 0;
        for (int64_t i = 0; i < count; ++i) {
          at[inside] = at[i];
          inside += at[i] != kOutside;
        }
        for (int64_t i = 0; i < inside; ++i) ++counters[at[i]];
      }
    }
    choose_digits(wanted, false, counters, selections);
  }
}

}  // namespace depthstill::cpu
