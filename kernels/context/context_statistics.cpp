#include "kernels/context/context_statistics.h"

#include <algorithm>
#include <cmath>

#include "kernels/context/select.h"
#include "kernels/core/parallel.h"

// A thread takes whole maps: no counters are shared, and none are added up.
namespace depthstill::cpu {
namespace {

KeyBounds bounds_of(int64_t pixels, const float* v, const uint8_t* leaves) {
  uint32_t low_complement = 0, high = 0, n = 0;
#pragma omp simd reduction(max : low_complement, high) reduction(+ : n)
  for (int64_t i = 0; i < pixels; ++i) {
    const bool counts = leaves[i] != kNotCounted;
    const uint32_t key = key_of(v[i]);
    const uint32_t complement = counts ? ~key : 0u, counted = counts ? key : 0u;
    low_complement = complement > low_complement ? complement : low_complement;
    high = counted > high ? counted : high;
    n += counts ? 1u : 0u;
  }
  return {low_complement, high, n};
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
  for (int64_t i = 0; i < pixels; ++i) leaves[i] = is_finite(y[i]) ? uint8_t{0} : kNotCounted;
  const KeyBounds bounds = bounds_of(pixels, y, leaves);
  LeafBorders borders = LeafBorders::of_range(rule, value_of(~bounds.low_complement), value_of(bounds.high));
  if (rule.kind == ContextKind::kQuantile) {
    Selection quartiles[WantedQuartiles::kSelections];
    select(WantedQuartiles{}, pixels, y, leaves, bounds, counters, quartiles);
    for (int k = 0; k < 3; ++k) borders.border[k] = static_cast<double>(value_of(quartiles[k].low));
  }
#pragma omp simd
  for (int64_t i = 0; i < pixels; ++i) leaves[i] = borders.leaf(y[i]);
}

// Sums of |v - t| over each context of one map.
template <class Tree>
void add_deviations(int64_t pixels, const float* v, const uint8_t* leaves, const ContextStats* stats, double* sums) {
  std::fill_n(sums, Tree::kContexts, 0.0);
  for (int64_t begin = 0; begin < pixels; begin += kSelectBlock) {
    const int64_t count = std::min(kSelectBlock, pixels - begin);
    const float* block = v + begin;
    int32_t leaf[kSelectBlock];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) leaf[i] = leaves[begin + i];
    for (int u = 0; u < Tree::kContexts; ++u) {
      const int first = Tree::leaves(u).first, end = Tree::leaves(u).end;
      const auto t = static_cast<double>(stats[u].t);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < count; ++i) {
        const double deviation = std::fabs(static_cast<double>(block[i]) - t);
        sum += leaf[i] >= first && leaf[i] < end ? deviation : 0.0;
      }
      sums[u] += sum;
    }
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
