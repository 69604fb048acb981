#include "kernels/context/context_statistics.h"

#include <algorithm>

#include "kernels/context/leaf_lanes.h"
#include "kernels/context/select.h"
#include "kernels/core/parallel.h"

// A thread takes whole maps: no counters are shared, and none are added up.
namespace depthstill::cpu {
namespace {

constexpr int64_t kBlock = 128;  // pixels between two additions in double

// Of the pixels that count: those whose stored leaf says so, or without leaves the finite ones.
KeyBounds bounds_of(int64_t pixels, const float* v, const uint8_t* leaves) {
  LaneBits low_complement{}, high{}, n{};
  for (int64_t i = 0; i < pixels; i += kLanes) {
    const int64_t lanes = std::min<int64_t>(kLanes, pixels - i);
    const Lanes value = load_first(v + i, lanes);
    const LaneInts counts = leaves != nullptr ? load_first(leaves + i, lanes, kNotCounted) != kNotCounted
                                              : finite_lanes(value) & first_lanes(lanes);
    const LaneBits mask = std::bit_cast<LaneBits>(counts), key = keys_of(value);
    const LaneBits complement = ~key & mask, counted = key & mask;
    low_complement = complement > low_complement ? complement : low_complement;
    high = counted > high ? counted : high;
    n -= mask;
  }
  KeyBounds bounds{};
  for (int i = 0; i < kLanes; ++i) {
    bounds.low_complement = std::max(bounds.low_complement, low_complement[i]);
    bounds.high = std::max(bounds.high, high[i]);
    bounds.n += n[i];
  }
  return bounds;
}

// Assigns the leaves of one image; counters as for select().
void assign_leaves(const MapShape& shape, const ContextRule& rule, const float* y, uint32_t* counters,
                   uint8_t* leaves) {
  const int64_t pixels = shape.pixels();
  if (rule.kind == ContextKind::kGrid) {
    for (int64_t row = 0, i = 0; row < shape.H; ++row) {
      for (int64_t col = 0; col < shape.W; ++col, ++i) {
        leaves[i] = is_finite(y[i]) ? cell_of(row, col, shape.H, shape.W) : kNotCounted;
      }
    }
    return;
  }
  const KeyBounds bounds = bounds_of(pixels, y, nullptr);
  LeafBorders borders = LeafBorders::of_range(rule, value_of(~bounds.low_complement), value_of(bounds.high));
  if (rule.kind == ContextKind::kQuantile) {
    Selection quartiles[WantedQuartiles::kSelections];
    select(WantedQuartiles{}, pixels, y, nullptr, bounds, counters, quartiles);
    for (int k = 0; k < 3; ++k) borders.border[k] = value_of(quartiles[k].low);
  }
  for (int64_t i = 0; i < pixels; i += kLanes) {  // borders.leaf() of each lane
    const int64_t lanes = std::min<int64_t>(kLanes, pixels - i);
    const Lanes v = load_first(y + i, lanes);
    const LaneInts leaf = -(v >= borders.border[0]) - (v >= borders.border[1]) - (v >= borders.border[2]);
    const LaneInts counted = v >= borders.top ? LaneInts{} + kNoContext : leaf;
    store_first(leaves + i, lanes, finite_lanes(v) ? counted : LaneInts{} + kNotCounted);
  }
}

// Sums of |v - t| over each context of one map.
template <class Tree>
void add_deviations(int64_t pixels, const float* v, const uint8_t* leaves, const ContextStats* stats, double* sums) {
  std::fill_n(sums, Tree::kContexts, 0.0);
  for (int64_t begin = 0; begin < pixels; begin += kBlock) {
    const int64_t end = std::min(pixels, begin + kBlock);
    Lanes block[Tree::kContexts] = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      const int64_t lanes = std::min<int64_t>(kLanes, end - i);
      const Lanes value = load_first(v + i, lanes);
      const LeafLanes<Tree> contexts{load_first(leaves + i, lanes, kNotCounted)};
      for (int level = 0; level < kContextLevels; ++level) {
        for (int u = Tree::first(level); u < Tree::end(level); ++u) {
          block[u] += where(contexts.in(u, level), magnitude(value - stats[u].t));
        }
      }
    }
    for (int u = 0; u < Tree::kContexts; ++u) sums[u] += sum_of(block[u]);
  }
}

template <class Tree>
void map_statistics(int64_t pixels, const ContextRule& rule, const float* v, const uint8_t* leaves, uint32_t* counters,
                    ContextStats* stats) {
  Selection medians[Tree::kContexts];
  select(WantedMedians<Tree>{}, pixels, v, leaves, bounds_of(pixels, v, leaves), counters, medians);
  for (int u = 0; u < Tree::kContexts; ++u) {
    const Selection& m = medians[u];
    stats[u] = m.n > 0 ? ContextStats{value_of(m.low), 0.0f, m.n, m.below, m.equal} : ContextStats{};
  }
  double sums[Tree::kContexts];
  add_deviations<Tree>(pixels, v, leaves, stats, sums);
  for (int u = 0; u < Tree::kContexts; ++u) stats[u].s = context_deviation(rule.reference, sums[u], stats[u].n);
}

}  // namespace

void context_statistics(Stream stream, const MapShape& shape, const ContextRule& rule, const float* x, const float* y,
                        uint8_t* leaves, ContextStats* stats) {
  visit_tree(rule.kind, [&]<class Tree>() {
    const int64_t pixels = shape.pixels(), counters = select_counters<WantedMedians<Tree>>();
    const size_t bytes = static_cast<size_t>(num_threads() * counters) * sizeof(uint32_t);
    auto* scratch = static_cast<uint32_t*>(stream.scratch->get(bytes));
    parallel_ranges(shape.N, 1, [&](int64_t begin, int64_t end, int part) {
      for (int64_t n = begin; n < end; ++n) {
        assign_leaves(shape, rule, y + n * pixels, scratch + part * counters, leaves + n * pixels);
      }
    });
    parallel_ranges(2 * shape.N, 1, [&](int64_t begin, int64_t end, int part) {
      for (int64_t map = begin; map < end; ++map) {
        const int64_t n = map % shape.N;
        map_statistics<Tree>(pixels, rule, (map < shape.N ? x : y) + n * pixels, leaves + n * pixels,
                             scratch + part * counters, stats + map * Tree::kContexts);
      }
    });
  });
}

}  // namespace depthstill::cpu
