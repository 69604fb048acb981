// The trial that chooses the way of a DPM head (engine/ops/dpm_head_way.h), at full size on the simulated H100: it
// launches what differs between the two kinds of step, and needs less memory than either.
#include "engine/ops/dpm_head_way.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <string>

#include "engine/allocator.h"
#include "engine/step_arena.h"
#include "kernels/core/dry_run.h"
#include "tests/dry_run/train_step.h"

namespace depthstill {
namespace {

DpmHeadProblem problem_of(DepthModel& model, int64_t batch) {
  const LossOptions loss = named_loss("tie_kd");
  DpmHeadProblem problem;
  problem.head = model.dpm_head();
  problem.bins = model.bins();
  problem.x = {batch, 352 - DryStep::kTopRows, 704, problem.head.weight.size(3)};
  problem.dtype = DType::kBf16;
  problem.options = loss.dpm;
  return problem;
}

constexpr DpmHeadWay kWays[] = {DpmHeadWay::kStored, DpmHeadWay::kFused};

// The number of launches, by what is launched and its grid.
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

TEST(DpmHeadTrial, LaunchesWhatDiffersBetweenTheSteps) {
  enable_dry_run();
  constexpr int64_t kBatch = 2;
  for (const char* model : {"mobilenet_unet", "resnet18_unet"}) {
    SCOPED_TRACE(model);
    DryStep step(model, kBatch, DType::kBf16);
    const DpmHeadTrial trial(problem_of(step.model(), kBatch));
    const auto step_launches = [&](bool fused) {
      step.fuse_head(fused);
      return launched([&] { step(); });
    };
    const auto trial_launches = [&](DpmHeadWay way) { return launched([&] { trial.run(way); }); };
    const Launches of_steps = difference(step_launches(true), step_launches(false));
    EXPECT_GE(of_steps.size(), 6u);
    EXPECT_EQ(difference(trial_launches(DpmHeadWay::kFused), trial_launches(DpmHeadWay::kStored)), of_steps);
  }
}

TEST(DpmHeadTrial, NeedsLessMemoryThanAStep) {
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
      const DpmHeadTrial trial(problem_of(step.model(), 32));
      for (const DpmHeadWay way : kWays) trial.milliseconds(way, std::numeric_limits<double>::infinity());
    }
    const size_t trial_bytes = memory_stats(Device::kCuda).peak - before;
    EXPECT_GT(trial_bytes, size_t{5} << 30);
    EXPECT_LT(trial_bytes, step_bytes);
    EXPECT_LT(memory_stats(Device::kCuda).in_use, before + (size_t{1} << 20));
  }
}

TEST(DpmHeadTrial, IsNotMadeInADryRun) {
  enable_dry_run();
  DryStep step("mobilenet_unet", 1, DType::kBf16);
  cuda::take_dry_run();
  EXPECT_EQ(choose_dpm_head_way(problem_of(step.model(), 1), {}).way, DpmHeadWay::kStored);
  EXPECT_EQ(cuda::take_dry_run().launches.size(), 0u);
}

}  // namespace
}  // namespace depthstill
