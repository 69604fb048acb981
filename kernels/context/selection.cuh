// The passes of selection.h on CUDA, for several maps at once: grid (blocks, N, maps). The digit that a pass leads to
// is chosen by every block of what comes next, from counters in L2 (57 KB a map): no kernel between passes, no last
// block.
#pragma once

#include "kernels/context/selection.h"
#include "kernels/core/pack.cuh"
#include "kernels/core/warp.cuh"

namespace depthstill::cuda {

inline constexpr int kSelectThreads = 1024;
inline constexpr int kSelectBlocks = 16;  // of a map: fixed by its size, as sums over them must not depend on the GPU

// Device memory of a selection from `maps` maps; zero at the start, but for `states`.
template <class Wanted>
struct SelectionSpace {
  static constexpr int64_t kFirst = static_cast<int64_t>(Wanted::kLeaves) * kDigits;
  static constexpr int64_t kLater = static_cast<int64_t>(Wanted::kSelections) * kDigits;
  static constexpr int64_t kCounters = kFirst + 2 * kLater;

  int64_t maps = 0;
  KeyBounds* bounds = nullptr;   // (maps)
  unsigned* counters = nullptr;  // (maps, kCounters)
  Selection* states = nullptr;   // (2, maps, kSelections): after the first and the second pass

  static int64_t zeroed_bytes(int64_t maps) {
    return maps * static_cast<int64_t>(sizeof(KeyBounds) + kCounters * sizeof(unsigned));
  }
  static int64_t bytes(int64_t maps) {
    return (zeroed_bytes(maps) + 2 * maps * Wanted::kSelections * static_cast<int64_t>(sizeof(Selection)) + 15) / 16 *
           16;
  }
  // At `memory`, of which zeroed_bytes() are to be set to zero.
  static SelectionSpace at(void* memory, int64_t maps) {
    SelectionSpace space;
    space.maps = maps;
    space.counters = static_cast<unsigned*>(memory);
    space.bounds = reinterpret_cast<KeyBounds*>(space.counters + maps * kCounters);
    space.states = reinterpret_cast<Selection*>(space.bounds + maps);
    return space;
  }

  __device__ unsigned* counters_of(int64_t map, int pass) const {
    return counters + map * kCounters + (pass == 0 ? 0 : kFirst + (pass - 1) * kLater);
  }
  __device__ Selection* state(int64_t map, int pass) const {
    return states + ((pass - 1) * maps + map) * Wanted::kSelections;
  }
};

// now (kSelections), in shared memory: where the selections stand after `pass` passes. All threads of a block call it;
// a warp takes a selection, a lane 64 digits. A barrier has to follow.
template <class Wanted>
__device__ static void choose_digits(const Wanted& wanted, const SelectionSpace<Wanted>& space, int64_t map, int pass,
                                     Selection* now) {
  constexpr int kShare = kDigits / kWarpSize;
  const int lane = thread_rank() % kWarpSize, warps = static_cast<int>(blockDim.x) / kWarpSize;
  for (int u = thread_rank() / kWarpSize; u < Wanted::kSelections; u += warps) {
    Selection selection = pass <= 1 ? Selection::from(wanted.bounds(space.bounds[map])) : space.state(map, pass - 1)[u];
    unsigned sum = 0, before = 0;
    const LeafRange rows = pass <= 1 ? Wanted::leaves(u) : LeafRange{u, u + 1};
    const unsigned* counters = pass == 0 ? nullptr : space.counters_of(map, pass - 1) + lane * kShare;
    for (int row = rows.first; pass > 0 && row < rows.end; ++row) {
#pragma unroll 8
      for (int d = 0; d < kShare; ++d) sum += counters[row * kDigits + d];
    }
    unsigned scan = sum;
#pragma unroll
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const unsigned other = __shfl_up_sync(kAllLanes, scan, static_cast<unsigned>(offset));
      if (lane >= offset) scan += other;
    }
    const unsigned all = __shfl_sync(kAllLanes, scan, kWarpSize - 1);
    if (pass == 1) {
      selection.n = static_cast<int32_t>(all);
      selection.rank = wanted.rank(u, selection.n);
    }
    const bool open = pass == 1 ? selection.rank >= 0 : pass > 1 && selection.width() != 0;
    const auto left = static_cast<unsigned>(selection.rank - selection.below);
    const bool holds = open && left >= scan - sum && left < scan;
    if (holds) {
      before = scan - sum;
      for (int d = 0; d < kShare; ++d) {
        unsigned count = 0;
        for (int row = rows.first; row < rows.end; ++row) count += counters[row * kDigits + d];
        if (left < before + count) {
          selection.choose(static_cast<uint32_t>(lane * kShare + d), static_cast<int32_t>(before),
                           static_cast<int32_t>(count));
          break;
        }
        before += count;
      }
    }
    const unsigned holders = __ballot_sync(kAllLanes, holds);
    if (holds || (holders == 0 && lane == 0)) {
      now[u] = selection;
      if (blockIdx.x == 0 && (pass == 1 || pass == 2)) space.state(map, pass)[u] = selection;
    }
  }
}

// Neighbours of the same digit are added up before they are counted: depth is smooth, and a constant map would have all
// threads wait for one counter.
struct DigitRun {
  int at = -1;  // -1: none
  unsigned count = 0;
  __device__ void add(int digit, unsigned* counters) {
    if (digit != at) flush(counters);
    at = digit;
    ++count;
  }
  __device__ void flush(unsigned* counters) {
    if (at >= 0) atomicAdd(counters + at, count);
    count = 0;
  }
};

// The maps that are selected from: blockIdx.z says which.
struct SelectionMaps {
  const float *first, *second;  // (N, pixels)
  const uint8_t* leaves;        // (N, pixels) or null
  int64_t pixels;
};

namespace {

// A pass. Each block counts its share of a map in shared memory, then adds what is not zero to the map's counters:
// integers, so in any order. Reads 5 B per pixel (4 without leaves). Bound: memory; shared atomics where digits differ.
template <class Wanted, int kWide, bool kFirst>
__global__ void __launch_bounds__(kSelectThreads, 1)
    select_kernel(Wanted wanted, SelectionMaps maps, SelectionSpace<Wanted> space, int pass) {
  constexpr int kRows = kFirst ? Wanted::kLeaves : Wanted::kSelections, kRuns = kFirst ? 1 : Wanted::kLevels;
  DYNAMIC_SHARED(unsigned, counters);
  __shared__ Selection selections[Wanted::kSelections];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t n = blockIdx.y, map = static_cast<int64_t>(blockIdx.z) * gridDim.y + n;
  for (int i = thread; i < kRows * kDigits; i += kSelectThreads) counters[i] = 0;
  choose_digits(wanted, space, map, pass, selections);
  __syncthreads();
  const float* v = (blockIdx.z == 0 ? maps.first : maps.second) + n * maps.pixels;
  const uint8_t* leaves = maps.leaves == nullptr ? nullptr : maps.leaves + n * maps.pixels;
  DigitRun runs[kRuns];
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kSelectThreads * kWide;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kSelectThreads + thread) * kWide; i < maps.pixels; i += stride) {
    const Pack<float, kWide> values = load_pack<kWide>(v + i);
    Pack<uint8_t, kWide> bytes{};
    if (leaves != nullptr) bytes = load_pack<kWide>(leaves + i);
#pragma unroll
    for (int k = 0; k < kWide; ++k) {
      const uint32_t key = key_of(values.lane[k]);
      const int leaf = Wanted::leaf(values.lane[k], bytes.lane[k]);
      if constexpr (kFirst) {
        const auto digit = static_cast<int>(selections[0].digit(key));
        runs[0].add(leaf < Wanted::kLeaves ? leaf * kDigits + digit : -1, counters);
      } else {
#pragma unroll
        for (int level = 0; level < kRuns; ++level) {
          const int u = Wanted::selection(leaf, level);
          int at = -1;
          if (u < Wanted::kSelections && key - selections[u].low < selections[u].width()) {
            at = u * kDigits + static_cast<int>(selections[u].digit(key));
          }
          runs[level].add(at, counters);
        }
      }
    }
  }
#pragma unroll
  for (int level = 0; level < kRuns; ++level) runs[level].flush(counters);
  __syncthreads();
  unsigned* to = space.counters_of(map, pass);
  for (int i = thread; i < kRows * kDigits; i += kSelectThreads) {
    if (counters[i] != 0) atomicAdd(to + i, counters[i]);
  }
}

}  // namespace

// Blocks of a map whose threads take kWide pixels at a time.
inline unsigned select_blocks(int64_t pixels, int wide) {
  return blocks_for((pixels + wide - 1) / wide, kSelectThreads, kSelectBlocks);
}

// All passes; space.bounds are known. Three launches.
template <class Wanted, int kWide>
void select(LaunchStream at, const Wanted& wanted, const SelectionMaps& maps, const SelectionSpace<Wanted>& space,
            int64_t N) {
  const dim3 grid(select_blocks(maps.pixels, kWide), static_cast<unsigned>(N), static_cast<unsigned>(space.maps / N));
  constexpr size_t kRow = kDigits * sizeof(unsigned);
  launch(select_kernel<Wanted, kWide, true>, grid, kSelectThreads, Wanted::kLeaves * kRow, at, wanted, maps, space, 0);
  for (int pass = 1; pass < kSelectionPasses; ++pass) {
    launch(select_kernel<Wanted, kWide, false>, grid, kSelectThreads, Wanted::kSelections * kRow, at, wanted, maps,
           space, pass);
  }
}

}  // namespace depthstill::cuda
