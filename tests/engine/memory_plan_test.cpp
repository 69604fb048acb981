#include "engine/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

// A sequence of allocations and frees as a step makes it: some blocks live shortly, some until their turn in reverse.
std::vector<BlockLife> random_lives(uint32_t seed, int count) {
  std::mt19937 random(seed);
  std::vector<BlockLife> lives;
  std::vector<size_t> alive;
  int64_t time = 0;
  while (static_cast<int>(lives.size()) < count || !alive.empty()) {
    const bool may_begin = static_cast<int>(lives.size()) < count;
    if (may_begin && (alive.empty() || random() % 100 < 55)) {
      const size_t bytes = 1 + random() % (random() % 4 == 0 ? 1u << 20 : 1u << 10);
      alive.push_back(lives.size());
      lives.push_back({bytes, time++, 0});
    } else {
      const size_t at = random() % 2 == 0 ? alive.size() - 1 : random() % alive.size();
      lives[alive[at]].end = time++;
      alive.erase(alive.begin() + static_cast<ptrdiff_t>(at));
    }
  }
  return lives;
}

void expect_valid(const std::vector<BlockLife>& lives, const MemoryPlan& plan, size_t alignment) {
  ASSERT_EQ(plan.offsets.size(), lives.size());
  EXPECT_GE(plan.bytes, plan.live_peak);
  for (size_t a = 0; a < lives.size(); ++a) {
    EXPECT_EQ(plan.offsets[a] % alignment, 0u);
    EXPECT_LE(plan.offsets[a] + lives[a].bytes, plan.bytes);
    for (size_t b = 0; b < a; ++b) {
      const bool both_alive = lives[a].begin < lives[b].end && lives[b].begin < lives[a].end;
      const bool overlap =
          plan.offsets[a] < plan.offsets[b] + lives[b].bytes && plan.offsets[b] < plan.offsets[a] + lives[a].bytes;
      EXPECT_FALSE(both_alive && overlap) << "blocks " << a << " and " << b;
    }
  }
}

TEST(MemoryPlan, BlocksThatLiveTogetherNeverOverlap) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const std::vector<BlockLife> lives = random_lives(seed, 1 + static_cast<int>(seed) * 5);
    for (const size_t alignment : {size_t{1}, size_t{256}}) {
      const MemoryPlan plan = plan_memory(lives, alignment);
      expect_valid(lives, plan, alignment);
      EXPECT_LE(static_cast<double>(plan.bytes), 1.2 * static_cast<double>(plan.live_peak)) << "seed " << seed;
    }
  }
}

TEST(MemoryPlan, StackedLivesNeedTheirPeakOnly) {
  // Forward allocates 1, 2, ... blocks; backward frees them in reverse order with a gradient beside each.
  std::vector<BlockLife> lives;
  constexpr int64_t kLayers = 30;
  for (int64_t i = 0; i < kLayers; ++i) {
    lives.push_back({static_cast<size_t>(1000 * (i % 7 + 1)), i, 2 * kLayers - i});
  }
  const MemoryPlan plan = plan_memory(lives);
  expect_valid(lives, plan, 256);
  EXPECT_EQ(plan.bytes, plan.live_peak);
}

TEST(MemoryPlan, CountsTheLivePeakByHand) {
  const std::vector<BlockLife> lives = {{256, 0, 4}, {100, 1, 3}, {512, 3, 6}, {256, 4, 5}};
  const MemoryPlan plan = plan_memory(lives);
  EXPECT_EQ(plan.live_peak, 768u);
  EXPECT_EQ(plan.bytes, 768u);
  expect_valid(lives, plan, 256);
}

TEST(MemoryPlan, NothingNeedsNothing) {
  const MemoryPlan plan = plan_memory({});
  EXPECT_EQ(plan.bytes, 0u);
  EXPECT_TRUE(plan.offsets.empty());
}

TEST(MemoryPlan, RefusesABlockThatNeverLives) {
  const std::vector<BlockLife> lives = {{256, 3, 3}};
  EXPECT_THROW(plan_memory(lives), Error);
}

}  // namespace
}  // namespace depthstill
