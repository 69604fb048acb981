#include "engine/memory_plan.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

size_t live_peak(std::span<const BlockLife> blocks) {
  std::map<int64_t, std::pair<size_t, size_t>> changes;  // time -> bytes that begin, that end
  for (const BlockLife& block : blocks) {
    changes[block.begin].first += block.bytes;
    changes[block.end].second += block.bytes;
  }
  size_t alive = 0, peak = 0;
  for (const auto& [time, change] : changes) {
    alive += change.first - change.second;
    peak = std::max(peak, alive);
  }
  return peak;
}

// Places the blocks in `order`; returns the bytes that the arena needs.
size_t place(std::span<const BlockLife> blocks, const std::vector<size_t>& order, std::vector<size_t>& offsets) {
  std::vector<size_t> by_offset;  // the blocks placed so far
  size_t arena = 0;
  for (const size_t i : order) {
    const BlockLife& block = blocks[i];
    size_t offset = 0;
    for (const size_t other : by_offset) {
      if (blocks[other].end <= block.begin || block.end <= blocks[other].begin) continue;
      if (offset + block.bytes <= offsets[other]) break;  // fits below it
      offset = std::max(offset, offsets[other] + blocks[other].bytes);
    }
    offsets[i] = offset;
    arena = std::max(arena, offset + block.bytes);
    const auto lower = [&](size_t a, size_t value) { return offsets[a] < value; };
    by_offset.insert(std::lower_bound(by_offset.begin(), by_offset.end(), offset, lower), i);
  }
  return arena;
}

}  // namespace

MemoryPlan plan_memory(std::span<const BlockLife> blocks, size_t alignment) {
  check(alignment > 0, "memory plan: expected an alignment of at least 1");
  std::vector<BlockLife> rounded(blocks.begin(), blocks.end());
  for (BlockLife& block : rounded) {
    check(block.begin < block.end, "memory plan: expected a block to end after ", block.begin, ", got ", block.end);
    block.bytes = (block.bytes + alignment - 1) / alignment * alignment;
  }
  const auto life = [&](size_t i) { return rounded[i].end - rounded[i].begin; };
  const auto area = [&](size_t i) { return static_cast<double>(rounded[i].bytes) * static_cast<double>(life(i)); };

  MemoryPlan best;
  best.live_peak = live_peak(rounded);
  std::vector<size_t> order(rounded.size()), offsets(rounded.size());
  const auto attempt = [&](auto before) {
    if (!best.offsets.empty() && best.bytes == best.live_peak) return;
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), before);
    const size_t bytes = place(rounded, order, offsets);
    if (best.offsets.empty() || bytes < best.bytes) {
      best.offsets = offsets;
      best.bytes = bytes;
    }
  };
  attempt([&](size_t a, size_t b) { return rounded[a].bytes > rounded[b].bytes; });
  attempt([&](size_t a, size_t b) { return area(a) > area(b); });
  attempt([&](size_t a, size_t b) { return life(a) > life(b); });
  attempt([&](size_t a, size_t b) { return rounded[a].begin < rounded[b].begin; });
  return best;
}

}  // namespace depthstill
