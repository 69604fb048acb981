#include "engine/step_arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/tensor.h"

namespace depthstill {
namespace {

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Tensor bytes_of_value(int64_t bytes, int value) {
  const Tensor t = empty({bytes}, DType::kUint8);
  std::memset(t.raw(), value, t.bytes());
  return t;
}

bool holds(const Tensor& t, int value) {
  const auto* p = t.data<uint8_t>();
  for (int64_t i = 0; i < t.numel(); ++i) {
    if (p[i] != value) return false;
  }
  return true;
}

// Allocates and frees at random, the same for every seed, and checks that no tensor is overwritten by another.
void random_step(uint32_t seed, int tensors, std::vector<const void*>* addresses) {
  std::mt19937 random(seed);
  std::vector<std::pair<Tensor, int>> alive;
  for (int i = 0; i < tensors; ++i) {
    const int value = static_cast<int>(random() % 251);
    alive.emplace_back(bytes_of_value(1 + static_cast<int64_t>(random() % 5000), value), value);
    addresses->push_back(alive.back().first.raw());
    while (!alive.empty() && random() % 100 < 45) {
      const size_t at = random() % alive.size();
      ASSERT_TRUE(holds(alive[at].first, alive[at].second));
      alive.erase(alive.begin() + static_cast<ptrdiff_t>(at));
    }
  }
  for (const auto& [tensor, value] : alive) ASSERT_TRUE(holds(tensor, value));
}

TEST(StepArena, ReplaysTheFirstStepInOneArena) {
  for (uint32_t seed = 0; seed < 5; ++seed) {
    StepArena arena(Device::kCpu);
    std::vector<const void*> first, second, third;
    arena.run([&] { random_step(seed, 300, &first); });
    ASSERT_NE(arena.plan(), nullptr);
    EXPECT_EQ(arena.plan()->offsets.size(), 300u);
    const MemoryStats before = memory_stats(Device::kCpu);
    arena.run([&] { random_step(seed, 300, &second); });
    arena.run([&] { random_step(seed, 300, &third); });
    const MemoryStats after = memory_stats(Device::kCpu);
    EXPECT_EQ(after.allocations, before.allocations);
    EXPECT_EQ(after.in_use, before.in_use);
    EXPECT_EQ(second, third);
  }
}

TEST(StepArena, WhatOutlivesTheStepStaysOutside) {
  StepArena arena(Device::kCpu);
  Tensor kept;
  const auto step = [&](int value) {
    const Tensor inner = bytes_of_value(3000, 1);
    kept = bytes_of_value(1000, value);
    const Tensor last = bytes_of_value(3000, 2);
  };
  for (int value = 10; value < 14; ++value) {
    arena.run([&] { step(value); });
    const Tensor noise = bytes_of_value(5000, 77);
    EXPECT_TRUE(holds(kept, value));
  }
  EXPECT_EQ(arena.plan()->offsets.size(), 2u);
}

TEST(StepArena, ScratchIsNotTheSteps) {
  StepArena arena(Device::kCpu);
  for (int64_t i = 1; i <= 3; ++i) {
    arena.run([&] {
      const Tensor x = empty({10});
      stream_of(Device::kCpu).scratch->get(static_cast<size_t>(i) << 24);
    });
  }
}

TEST(StepArena, RefusesAnotherStep) {
  StepArena arena(Device::kCpu);
  arena.run([] { const Tensor a = empty({10}), b = empty({20}); });
  EXPECT_EQ(
      error_of([&] { arena.run([] { const Tensor a = empty({10}), b = empty({30}); }); }),
      "step arena: allocation 1 of the step: expected 80 bytes, found 120; the shapes of a step must stay the same");
  EXPECT_EQ(error_of([&] { arena.run([] { const Tensor a = empty({10}); }); }),
            "step arena: expected 2 allocations in a step, found 1");
  EXPECT_EQ(error_of([&] { arena.run([] { const Tensor a = empty({10}), b = empty({20}), c = empty({1}); }); }),
            "step arena: expected 2 allocations in a step, found one more, of 4 bytes");
  Tensor kept;
  EXPECT_NE(error_of([&] {
              arena.run([&] {
                kept = empty({10});
                const Tensor b = empty({20});
              });
            }).find("expected every tensor of the step to be gone at its end"),
            std::string::npos);
}

TEST(StepArena, RefusesAPlaceThatIsInUse) {
  StepArena arena(Device::kCpu);
  arena.run([] {
    { const Tensor a = empty({100}); }
    const Tensor b = empty({100});
  });
  EXPECT_EQ(arena.plan()->bytes, 512u);
  EXPECT_NE(error_of([&] {
              arena.run([] { const Tensor a = empty({100}), b = empty({100}); });
            }).find("expected its place to be free"),
            std::string::npos);
}

TEST(StepArena, AStepThatFailsIsForgotten) {
  StepArena arena(Device::kCpu);
  EXPECT_THROW(arena.run([] {
    const Tensor a = empty({5});
    fail("no");
  }),
               Error);
  EXPECT_EQ(arena.plan(), nullptr);
  for (int i = 0; i < 2; ++i) {
    arena.run([] { const Tensor a = empty({10}); });
  }
  EXPECT_EQ(arena.plan()->offsets.size(), 1u);
}

}  // namespace
}  // namespace depthstill
