// A MemoryPlan gives each block that a training step allocates its place in one arena. With static shapes every step
// allocates and frees in the same order, so the lives of its blocks are known beforehand: blocks whose lives do not
// overlap share memory. The smallest arena is a bin packing problem; blocks are placed greedily, each at the lowest
// offset that is free for all of its life, in a few orders, and the best result is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace depthstill {

struct BlockLife {
  size_t bytes = 0;
  int64_t begin = 0, end = 0;  // alive at the times [begin, end)
};

struct MemoryPlan {
  std::vector<size_t> offsets;  // one per block
  size_t bytes = 0;             // size of the arena
  size_t live_peak = 0;         // most bytes alive at one time, each block rounded up: no arena can be smaller
};

MemoryPlan plan_memory(std::span<const BlockLife> blocks, size_t alignment = 256);

}  // namespace depthstill
