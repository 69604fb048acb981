#include "kernels/context/context_statistics.h"
#include "kernels/context/selection.cuh"
#include "kernels/core/partials.cuh"
#include "kernels/core/runtime.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = kSelectThreads;

// Bounds of the keys of x (z = 0) and y (z = 1) over the counted pixels of an image, and their number. Grid (blocks, N,
// 2). Reads 8 B per pixel. Bound: memory.
__global__ void __launch_bounds__(kThreads)
    context_bounds_kernel(int64_t pixels, const float* __restrict__ x, const float* __restrict__ y, KeyBounds* bounds) {
  const int64_t n = blockIdx.y, map = static_cast<int64_t>(blockIdx.z) * gridDim.y + n;
  const float* v = blockIdx.z == 0 ? x : y;
  unsigned extremes[2] = {0, 0}, count = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < pixels; i += stride) {
    const float value = v[n * pixels + i];
    if (!is_finite(y[n * pixels + i])) continue;
    const uint32_t key = key_of(value);
    extremes[0] = max(extremes[0], ~key);
    extremes[1] = max(extremes[1], key);
    ++count;
  }
  block_reduce<kThreads>(extremes, Max{});
  count = block_sum<kThreads>(count);
  if (threadIdx.x != 0 || count == 0) return;
  atomicMax(&bounds[map].low_complement, extremes[0]);
  atomicMax(&bounds[map].high, extremes[1]);
  atomicAdd(&bounds[map].n, count);
}

// The leaf of each pixel. Grid (blocks, N). Reads 4 B and writes 1 B per pixel. Bound: memory. `quartiles` is read with
// kQuantile alone; `bounds` are those of y.
template <ContextKind kind>
__global__ void __launch_bounds__(kThreads, 1)
    assign_leaves_kernel(MapShape shape, ContextRule rule, const float* __restrict__ y, const KeyBounds* bounds,
                         SelectionSpace<WantedQuartiles> quartiles, uint8_t* leaves) {
  const int64_t n = blockIdx.y, pixels = shape.pixels();
  LeafBorders borders{};
  if constexpr (kind != ContextKind::kGrid) {
    borders = LeafBorders::of_range(rule, value_of(~bounds[n].low_complement), value_of(bounds[n].high));
  }
  if constexpr (kind == ContextKind::kQuantile) {
    __shared__ Selection found[WantedQuartiles::kSelections];
    choose_digits(WantedQuartiles{}, quartiles, n, kSelectionPasses, found);
    __syncthreads();
    for (int k = 0; k < 3; ++k) borders.border[k] = value_of(found[k].low);
  }
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < pixels; i += stride) {
    const float value = y[n * pixels + i];
    uint8_t leaf;
    if constexpr (kind == ContextKind::kGrid) {
      leaf = is_finite(value) ? cell_of(i / shape.W, i % shape.W, shape.H, shape.W) : kNotCounted;
    } else {
      leaf = borders.leaf(value);
    }
    leaves[n * pixels + i] = leaf;
  }
}

// A thread keeps a sum per context in two registers.
template <class Tree>
constexpr int kDeviationThreads = Tree::kContexts > 8 ? 512 : kThreads;

// Assigns stats but for s, and leaves sums of |v - t| per context in partials (2, N, blocks, contexts). Grid (blocks,
// N, 2). Reads 5 B per pixel. Bound: memory.
template <class Tree, int kWide>
__global__ void __launch_bounds__(kDeviationThreads<Tree>, 1)
    context_deviations_kernel(SelectionMaps maps, SelectionSpace<WantedMedians<Tree>> space, ContextStats* stats,
                              double* partials) {
  constexpr int kContexts = Tree::kContexts, kBlock = kDeviationThreads<Tree>;
  __shared__ Selection medians[kContexts];
  const int64_t n = blockIdx.y, map = static_cast<int64_t>(blockIdx.z) * gridDim.y + n;
  choose_digits(WantedMedians<Tree>{}, space, map, kSelectionPasses, medians);
  __syncthreads();
  if (blockIdx.x == 0 && threadIdx.x < kContexts) {
    const Selection& m = medians[threadIdx.x];
    stats[map * kContexts + threadIdx.x] =
        m.n > 0 ? ContextStats{value_of(m.low), 0.0f, m.n, m.below, m.equal} : ContextStats{};
  }
  const float* v = (blockIdx.z == 0 ? maps.first : maps.second) + n * maps.pixels;
  const uint8_t* leaves = maps.leaves + n * maps.pixels;
  double sums[kContexts] = {};
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kBlock * kWide;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x) * kWide; i < maps.pixels; i += stride) {
    const Pack<float, kWide> values = load_pack<kWide>(v + i);
    const Pack<uint8_t, kWide> bytes = load_pack<kWide>(leaves + i);
#pragma unroll
    for (int k = 0; k < kWide; ++k) {
      const int leaf = bytes.lane[k];
      if (leaf >= Tree::kLeaves) continue;
#pragma unroll
      for (int level = 0; level < kContextLevels; ++level) {
        const int u = Tree::context(leaf, level);
        const double deviation =
            fabs(static_cast<double>(values.lane[k]) - static_cast<double>(value_of(medians[u].low)));
#pragma unroll
        for (int c = 0; c < kContexts; ++c) sums[c] += c == u ? deviation : 0.0;  // registers have no index
      }
    }
  }
  store_partials<kBlock>(sums, map * gridDim.x + blockIdx.x, partials);
}

// s of all contexts: a thread to one, which adds the blocks' sums in order. Bound: the launch.
__global__ void finish_deviations_kernel(int64_t contexts, int64_t blocks, bool reference, int kContexts,
                                         const double* partials, ContextStats* stats) {
  for (const int64_t i : grid_stride(contexts)) {
    const double* from = partials + i / kContexts * blocks * kContexts + i % kContexts;
    double sum = 0;
    for (int64_t b = 0; b < blocks; ++b) sum += from[b * kContexts];
    stats[i].s = context_deviation(reference, sum, stats[i].n);
  }
}

template <class Tree>
void statistics(Stream stream, const MapShape& shape, const ContextRule& rule, const float* x, const float* y,
                uint8_t* leaves, ContextStats* stats) {
  using Medians = SelectionSpace<WantedMedians<Tree>>;
  using Quartiles = SelectionSpace<WantedQuartiles>;
  const int64_t N = shape.N, pixels = shape.pixels(), maps = 2 * N;
  const bool quantile = rule.kind == ContextKind::kQuantile;
  const unsigned blocks = select_blocks(pixels, 1);
  const int64_t quartile_bytes = quantile ? Quartiles::bytes(N) : 0;
  const int64_t partial_bytes = maps * blocks * Tree::kContexts * static_cast<int64_t>(sizeof(double));
  auto* memory = static_cast<char*>(
      stream.scratch->get(static_cast<size_t>(partial_bytes + quartile_bytes + Medians::bytes(maps))));
  auto* partials = reinterpret_cast<double*>(memory);
  auto quartiles = Quartiles::at(memory + partial_bytes, quantile ? N : 0);
  const auto medians = Medians::at(memory + partial_bytes + quartile_bytes, maps);
  zero(memory + partial_bytes, static_cast<size_t>(quartile_bytes + Medians::zeroed_bytes(maps)), stream);

  const dim3 both(blocks, static_cast<unsigned>(N), 2), one(blocks, static_cast<unsigned>(N));
  launch(context_bounds_kernel, both, kThreads, 0, stream, pixels, x, y, medians.bounds);
  const KeyBounds* y_bounds = medians.bounds + N;
  quartiles.bounds = medians.bounds + N;
  const auto assign = [&](auto kernel) {
    launch(kernel, one, kThreads, 0, stream, shape, rule, y, y_bounds, quartiles, leaves);
  };
  visit_pack<4>(packable<4>(pixels, x, y) && packable<4>(pixels, leaves), [&]<int kWide>() {
    if (quantile) select<WantedQuartiles, kWide>(stream, {}, {y, y, nullptr, pixels}, quartiles, N);
    if (quantile) assign(assign_leaves_kernel<ContextKind::kQuantile>);
    if (rule.kind == ContextKind::kRange) assign(assign_leaves_kernel<ContextKind::kRange>);
    if (rule.kind == ContextKind::kGrid) assign(assign_leaves_kernel<ContextKind::kGrid>);
    const SelectionMaps pair{x, y, leaves, pixels};
    select<WantedMedians<Tree>, kWide>(stream, {}, pair, medians, N);
    launch(context_deviations_kernel<Tree, kWide>, both, kDeviationThreads<Tree>, 0, stream, pair, medians, stats,
           partials);
  });
  const int64_t contexts = maps * Tree::kContexts;
  launch(finish_deviations_kernel, blocks_for(contexts, 256), 256, 0, stream, contexts, static_cast<int64_t>(blocks),
         rule.reference, Tree::kContexts, partials, stats);
}

}  // namespace

void context_statistics(Stream stream, const MapShape& shape, const ContextRule& rule, const float* x, const float* y,
                        uint8_t* leaves, ContextStats* stats) {
  visit_tree(rule.kind, [&]<class Tree>() { statistics<Tree>(stream, shape, rule, x, y, leaves, stats); });
}

}  // namespace depthstill::cuda
