// The choice of the way that a training step takes with its DPM head's logits is tested on a clock of the test's; the
// trial that is timed runs on the emulated device.
#include "engine/ops/dpm_head_way.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "engine/allocator.h"
#include "kernels/core/library_options.h"
#include "tests/io/test_files.h"
#include "tests/ops/op_test.h"
#include "tests/with_options.h"

namespace depthstill {
namespace {

using testing_files::TemporaryFolder;

constexpr double kNever = -1;  // time of a way that does not run
constexpr int64_t kChannels = 128;

DpmHead head_of(int bins, Device device) {
  DpmHead head;
  head.weight = to_device(test::random_tensor({bins, 1, 1, kChannels}, 1, -0.1f, 0.1f), device);
  head.bias = to_device(test::random_tensor({bins}, 2), device);
  head.weight.set_requires_grad();
  head.bias.set_requires_grad();
  head.below = Activation::kRelu;
  return head;
}

DpmHeadProblem problem_of(Device device, int bins = 33) {
  DpmHeadProblem problem;
  problem.head = head_of(bins, device);
  problem.bins.bins = bins;
  problem.x = {2, 40, 32, kChannels};
  problem.dtype = DType::kBf16;
  return problem;
}

// A clock that shows these times and counts how often it is read.
struct FakeClock {
  double stored_ms, fused_ms;
  int reads = 0;

  DpmHeadClock with(plans::PlanCache* cache) {
    return {cache, [this](DpmHeadWay way, double) {
              ++reads;
              const double ms = way == DpmHeadWay::kFused ? fused_ms : stored_ms;
              check(ms != kNever, "does not run");
              return ms;
            }};
  }
};

bool fused(const DpmHeadChoice& choice) { return choice.way == DpmHeadWay::kFused; }

class DpmHeadWayTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!built_with_cuda()) enable_emulated_cuda();
  }
  void SetUp() override {
    if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  }
  static DpmHeadChoice choose(double stored_ms, double fused_ms) {
    FakeClock clock{stored_ms, fused_ms};
    return choose_dpm_head_way(problem_of(Device::kCuda), {}, clock.with(nullptr));
  }
};

TEST_F(DpmHeadWayTest, TheFasterWayIsTakenAndBothTimesAreSaid) {
  EXPECT_FALSE(fused(choose(2.0, 8.25)));
  const DpmHeadChoice choice = choose(8.25, 2.0);
  EXPECT_TRUE(fused(choice));
  EXPECT_NE(choice.note.find("made again"), std::string::npos) << choice.note;
  EXPECT_NE(choice.note.find("2.000 ms"), std::string::npos) << choice.note;
  EXPECT_NE(choice.note.find("8.250 ms"), std::string::npos) << choice.note;
}

TEST_F(DpmHeadWayTest, OfEqualTimesTheOneWithLessMemoryIsTaken) {
  EXPECT_TRUE(fused(choose(1.0, 1.02)));
  EXPECT_FALSE(fused(choose(1.0, 1.04)));
}

TEST_F(DpmHeadWayTest, AWayThatDoesNotRunIsNotTaken) {
  EXPECT_FALSE(fused(choose(5.0, kNever)));
  EXPECT_TRUE(fused(choose(kNever, 5.0)));
  EXPECT_FALSE(fused(choose(5.0, std::numeric_limits<double>::infinity())));
  EXPECT_THROW(choose(kNever, kNever), Error);
}

TEST_F(DpmHeadWayTest, IsRememberedOnDiskForTheSameProblemOnly) {
  const TemporaryFolder folder;
  const DpmHeadProblem problem = problem_of(Device::kCuda);
  FakeClock clock{8.0, 2.0}, later{2.0, 8.0};
  {
    plans::PlanCache cache(folder.path(), "a GPU");
    EXPECT_TRUE(fused(choose_dpm_head_way(problem, {}, clock.with(&cache))));
    EXPECT_EQ(clock.reads, 2);
    EXPECT_TRUE(fused(choose_dpm_head_way(problem, {}, later.with(&cache))));
  }
  plans::PlanCache cache(folder.path(), "a GPU");
  const DpmHeadChoice again = choose_dpm_head_way(problem, {}, later.with(&cache));
  EXPECT_TRUE(fused(again));
  EXPECT_NE(again.note.find("8.000 ms"), std::string::npos) << again.note;
  EXPECT_NE(again.note.find("measured before"), std::string::npos) << again.note;
  EXPECT_TRUE(fused(choose_dpm_head_way(problem, {}, {&cache, {}}))) << "without a clock";
  EXPECT_EQ(later.reads, 0);

  std::vector<DpmHeadProblem> others(6, problem);
  others[0].x = {3, 40, 32, kChannels};
  others[1].x = {2, 48, 32, kChannels};
  others[2].depth = false;
  others[3].options.sigma = 0.5f;
  others[4].options.mask = false;
  others[5].kl = false;
  for (const DpmHeadProblem& unlike : others) {
    EXPECT_FALSE(fused(choose_dpm_head_way(unlike, {}, later.with(&cache))));
  }
  EXPECT_EQ(later.reads, 2 * static_cast<int>(others.size()));
  EXPECT_FALSE(fused(choose_dpm_head_way(problem_of(Device::kCuda, 17), {}, later.with(&cache))));
}

TEST_F(DpmHeadWayTest, WithoutAClockLogitsAreStored) {
  const TemporaryFolder folder;
  plans::PlanCache cache(folder.path(), "a GPU");
  for (plans::PlanCache* some : {static_cast<plans::PlanCache*>(nullptr), &cache}) {
    const DpmHeadChoice choice = choose_dpm_head_way(problem_of(Device::kCuda), {}, {some, {}});
    EXPECT_FALSE(fused(choice));
    EXPECT_EQ(choice.note, "");
  }
  FakeClock clock{2.0, 1.0};
  EXPECT_TRUE(fused(choose_dpm_head_way(problem_of(Device::kCuda), {}, clock.with(&cache))))
      << "that was not remembered";
}

TEST_F(DpmHeadWayTest, WhereThereIsNoChoiceNothingIsTimed) {
  FakeClock clock{2.0, 1.0};
  DpmHeadProblem fp32 = problem_of(Device::kCuda);
  fp32.dtype = DType::kFloat;
  EXPECT_FALSE(fused(choose_dpm_head_way(problem_of(Device::kCpu), {}, clock.with(nullptr))));
  EXPECT_FALSE(fused(choose_dpm_head_way(fp32, {}, clock.with(nullptr))));
  EXPECT_FALSE(fused(choose_dpm_head_way(problem_of(Device::kCuda, 400), {}, clock.with(nullptr))));
  EXPECT_EQ(clock.reads, 0);
}

TEST_F(DpmHeadWayTest, WhatIsAskedForIsDoneWherePossible) {
  FakeClock clock{2.0, 1.0};
  DpmHeadProblem fp32 = problem_of(Device::kCuda);
  fp32.dtype = DType::kFloat;
  for (const DpmHeadWay wanted : {DpmHeadWay::kStored, DpmHeadWay::kFused}) {
    for (const Device device : {Device::kCpu, Device::kCuda})
      EXPECT_EQ(choose_dpm_head_way(problem_of(device), wanted, clock.with(nullptr)).way, wanted);
    const DpmHeadChoice impossible = choose_dpm_head_way(fp32, wanted, clock.with(nullptr));
    EXPECT_FALSE(fused(impossible));
    EXPECT_EQ(impossible.note.empty(), wanted == DpmHeadWay::kStored);
  }
  EXPECT_EQ(clock.reads, 0);
}

class DpmHeadTrialTest : public DpmHeadWayTest {
 protected:
  // The problem is that of a loss with a KL, with gradients of the depth, or both.
  static DpmHeadProblem small_problem(bool kl, bool depth) {
    DpmHeadProblem problem = problem_of(Device::kCuda);
    problem.x = {2, 4, 8, kChannels};
    problem.kl = kl;
    problem.depth = depth;
    return problem;
  }
};

TEST_F(DpmHeadTrialTest, RunsBothWaysAndLeavesNothing) {
  const size_t before = memory_stats(Device::kCuda).in_use;
  for (const auto& [kl, depth] : {std::pair(true, true), {true, false}, {false, true}}) {
    const DpmHeadProblem problem = small_problem(kl, depth);
    const DpmHeadTrial trial(problem);
    for (const DpmHeadWay way : {DpmHeadWay::kStored, DpmHeadWay::kFused}) trial.run(way);
    EXPECT_FALSE(problem.head.weight.grad().defined());
    EXPECT_FALSE(problem.head.bias.grad().defined());
  }
  // Scratch memory and tables stay.
  EXPECT_LT(memory_stats(Device::kCuda).in_use, before + (size_t{4} << 20));
}

TEST_F(DpmHeadTrialTest, CanBeTimed) {
  const DpmHeadTrial trial(small_problem(true, true));
  for (const DpmHeadWay way : {DpmHeadWay::kStored, DpmHeadWay::kFused}) {
    const double ms = trial.milliseconds(way, std::numeric_limits<double>::infinity());
    EXPECT_TRUE(std::isfinite(ms) && ms > 0) << ms;
  }
}

TEST_F(DpmHeadTrialTest, IsNotMadeOnTheEmulator) {
  if (built_with_cuda()) GTEST_SKIP() << "skipped: this is a GPU";
  LibraryOptions timing = library_options();
  timing.measure = true;
  const test::WithOptions with(timing);
  const DpmHeadChoice choice = choose_dpm_head_way(small_problem(true, true), {});
  EXPECT_FALSE(fused(choice));
  EXPECT_EQ(choice.note, "");
}

}  // namespace
}  // namespace depthstill
