// The trial that chooses a training step's head (tools/head_choice.h), at full size on the simulated H100: it launches
// what differs between the two kinds of step, and needs less memory than either.
#include "engine/ops/dpm_head_way.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <string>

#include "engine/allocator.h"
#include "engine/step_arena.h"
#include "kernels/dry_run.h"
#include "tests/dry_run/train_step.h"

namespace depthstill {
namespace {

HeadProblem problem_of(int64_t batch) {
  return {Device::kCuda, DType::kBf16, batch, 352, 704, named_loss("tie_kd").top_rows, named_loss("tie_kd")};
}

// How often something is launched, by what it is and its grid.
using Launches = std::map<std::string, int>;

template <class F>
Launches launched(F work) {
  work();  // makes what is made once
  cuda::take_dry_run();
  work();
  Launches launches;
  for (const cuda::Launch& launch : cuda::take_dry_run().launches) {
    ++launches[concat_text(launch.where, " ", launch.grid[0], " ", launch.grid[1], " ", launch.grid[2])];
  }
  return launches;
}

// a - b, without what they have in equal number.
Launches difference(Launches a, const Launches& b) {
  for (const auto& [what, times] : b) a[what] -= times;
  std::erase_if(a, [](const auto& entry) { return entry.second == 0; });
  return a;
}

TEST(HeadTrial, LaunchesWhatDiffersBetweenTheSteps) {
  enable_dry_run();
  constexpr int64_t kBatch = 2;
  for (const char* model : {"mobilenet_unet", "resnet18_unet"}) {
    SCOPED_TRACE(model);
    DryStep step(model, kBatch, DType::kBf16);
    const HeadTrial trial(step.student(), problem_of(kBatch));
    const auto step_launches = [&](bool fused) {
      step.fuse_head(fused);
      return launched([&] { step(); });
    };
    const auto trial_launches = [&](bool fused) { return launched([&] { trial.run(fused); }); };
    const Launches of_steps = difference(step_launches(true), step_launches(false));
    EXPECT_GE(of_steps.size(), 6u);
    EXPECT_EQ(difference(trial_launches(true), trial_launches(false)), of_steps);
  }
}

TEST(HeadTrial, NeedsLessMemoryThanAStep) {
  enable_dry_run();
  for (const char* model : {"mobilenet_unet", "resnet18_unet"}) {
    SCOPED_TRACE(model);
    DryStep step(model, 32, DType::kBf16);
    step.fuse_head();
    size_t step_bytes = 0;
    {
      StepArena arena(Device::kCuda);
      step();
      arena.run([&] { step(); });
      step_bytes = arena.plan()->live_peak;
    }
    const size_t before = memory_stats(Device::kCuda).in_use;
    reset_peak_memory(Device::kCuda);
    {
      const HeadTrial trial(step.student(), problem_of(32));
      for (const bool fused : {false, true}) trial.milliseconds(fused, std::numeric_limits<double>::infinity());
    }
    const size_t trial_bytes = memory_stats(Device::kCuda).peak - before;
    EXPECT_GT(trial_bytes, size_t{5} << 30);
    EXPECT_LT(trial_bytes, step_bytes);
    EXPECT_LT(memory_stats(Device::kCuda).in_use, before + (size_t{1} << 20));
  }
}

TEST(HeadTrial, IsNotMadeInADryRun) {
  enable_dry_run();
  DryStep step("mobilenet_unet", 1, DType::kBf16);
  cuda::take_dry_run();
  EXPECT_FALSE(choose_head(step.student(), problem_of(1), {}).fused);
  EXPECT_EQ(cuda::take_dry_run().launches.size(), 0u);
}

}  // namespace
}  // namespace depthstill
