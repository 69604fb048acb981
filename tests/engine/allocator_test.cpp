// The arena: reuse, merging, alignment and its statistics.
#include "engine/allocator.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "engine/system_memory.h"
#include "engine/tensor.h"

namespace depthstill {
namespace {

TEST(Allocator, BlocksAreAlignedAndDoNotOverlap) {
  std::mt19937 random(5);
  struct Live {
    unsigned char* p;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Live> live;
  for (int i = 0; i < 3000; ++i) {
    if (live.size() > 40 || (i % 3 == 2 && !live.empty())) {
      const size_t pick = random() % live.size();
      for (size_t k = 0; k < live[pick].bytes; ++k) ASSERT_EQ(live[pick].p[k], live[pick].mark);
      deallocate(Device::kCpu, live[pick].p);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(pick));
    }
    const size_t bytes = 1 + random() % 5000;
    auto* p = static_cast<unsigned char*>(allocate(Device::kCpu, bytes));
    ASSERT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
    const auto mark = static_cast<unsigned char>(i);
    std::memset(p, mark, bytes);
    live.push_back({p, bytes, mark});
  }
  for (const Live& block : live) deallocate(Device::kCpu, block.p);
}

TEST(Allocator, ARepeatedPatternTouchesNoNewMemory) {
  const auto step = [] {
    std::vector<Tensor> kept;
    for (int64_t n : {1000, 50, 70000, 3, 4096}) kept.push_back(empty({n}));
    kept.erase(kept.begin() + 1, kept.begin() + 3);
    kept.push_back(empty({70050}));
  };
  step();
  const MemoryStats first = memory_stats(Device::kCpu);
  for (int i = 0; i < 20; ++i) step();
  const MemoryStats later = memory_stats(Device::kCpu);
  EXPECT_EQ(later.high_water_moves, first.high_water_moves);
  EXPECT_EQ(later.system_allocations, first.system_allocations);
  EXPECT_EQ(later.in_use, first.in_use);
}

TEST(Allocator, CountsThePeak) {
  reset_peak_memory(Device::kCpu);
  const size_t before = memory_stats(Device::kCpu).in_use;
  {
    const Tensor a = empty({1 << 20});
    const Tensor b = empty({1 << 20});
  }
  const MemoryStats stats = memory_stats(Device::kCpu);
  EXPECT_EQ(stats.in_use, before);
  EXPECT_GE(stats.peak, before + (8u << 20));
  EXPECT_LE(stats.peak, before + (8u << 20) + 4096);
}

TEST(Allocator, MergesFreedNeighbours) {
  std::vector<void*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(allocate(Device::kCpu, 1 << 16));
  const int64_t moves = memory_stats(Device::kCpu).high_water_moves;
  for (void* p : blocks) deallocate(Device::kCpu, p);
  void* all = allocate(Device::kCpu, 8 << 16);
  EXPECT_EQ(memory_stats(Device::kCpu).high_water_moves, moves);
  deallocate(Device::kCpu, all);
}

TEST(Allocator, SaysWhatThereIsNoMemoryFor) {
  try {
    empty({int64_t{1} << 48}, DType::kFloat, Device::kCpu);  // 2^50 bytes: more than there are addresses
    FAIL() << "expected an error";
  } catch (const OutOfMemory& error) {
    EXPECT_EQ(std::string(error.what()).rfind("out of cpu memory: wanted 1.04858e+06 GiB with ", 0), 0u)
        << error.what();
  }
}

// The address space for it can be had, but whoever writes to it is killed.
TEST(Allocator, RefusesWhatTheSystemHasNotLeft) {
  const std::optional<size_t> left = available_memory();
  if (!left) GTEST_SKIP() << "skipped: the system does not say what memory it has left";
  const MemoryStats before = memory_stats(Device::kCpu);
  EXPECT_THROW(allocate(Device::kCpu, *left + (size_t{4} << 30)), OutOfMemory);
  EXPECT_EQ(memory_stats(Device::kCpu).in_use, before.in_use);
  deallocate(Device::kCpu, allocate(Device::kCpu, size_t{1} << 20));
}

TEST(Allocator, RefusesAForeignPointer) {
  int x = 0;
  EXPECT_THROW(deallocate(Device::kCpu, &x), Error);
}

}  // namespace
}  // namespace depthstill
