// Which way a training step takes with its DPM head's logits: on a clock of the test's, and the trial that is timed, on
// the emulated device.
#include "engine/ops/dpm_head_way.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "engine/allocator.h"
#include "kernels/library_options.h"
#include "tests/io/test_files.h"
#include "tests/with_options.h"

namespace depthstill {
namespace {

using testing_files::TemporaryFolder;

constexpr double kNever = -1;  // does not run

HeadProblem problem_of(int64_t batch = 2) {
  return {Device::kCuda, DType::kBf16, batch, 48, 32, 8, named_loss("tie_kd")};
}

// A clock that shows these times and counts how often it is read.
struct FakeClock {
  double stored_ms, fused_ms;
  int reads = 0;

  HeadClock with(plans::PlanCache* cache) {
    return {cache, [this](bool fused, double) {
              ++reads;
              const double ms = fused ? fused_ms : stored_ms;
              check(ms != kNever, "does not run");
              return ms;
            }};
  }
};

class HeadChoiceTest : public testing::Test {
 protected:
  HeadChoice choose(double stored_ms, double fused_ms) const {
    FakeClock clock{stored_ms, fused_ms};
    return choose_head(*student, problem_of(), {}, clock.with(nullptr));
  }
  std::unique_ptr<DepthModel> student = make_model("mobilenet_unet", {});
};

TEST_F(HeadChoiceTest, TheFasterWayIsTakenAndBothTimesAreSaid) {
  EXPECT_FALSE(choose(2.0, 8.25).fused);
  const HeadChoice choice = choose(8.25, 2.0);
  EXPECT_TRUE(choice.fused);
  EXPECT_NE(choice.note.find("made again"), std::string::npos) << choice.note;
  EXPECT_NE(choice.note.find("2.000 ms"), std::string::npos) << choice.note;
  EXPECT_NE(choice.note.find("8.250 ms"), std::string::npos) << choice.note;
}

TEST_F(HeadChoiceTest, OfEqualTimesTheOneWithLessMemoryIsTaken) {
  EXPECT_TRUE(choose(1.0, 1.02).fused);
  EXPECT_FALSE(choose(1.0, 1.04).fused);
}

TEST_F(HeadChoiceTest, AWayThatDoesNotRunIsNotTaken) {
  EXPECT_FALSE(choose(5.0, kNever).fused);
  EXPECT_TRUE(choose(kNever, 5.0).fused);
  EXPECT_FALSE(choose(5.0, std::numeric_limits<double>::infinity()).fused);
  EXPECT_THROW(choose(kNever, kNever), Error);
}

TEST_F(HeadChoiceTest, IsRememberedOnDiskForTheSameProblemOnly) {
  const TemporaryFolder folder;
  FakeClock clock{8.0, 2.0}, later{2.0, 8.0};
  {
    plans::PlanCache cache(folder.path(), "a GPU");
    EXPECT_TRUE(choose_head(*student, problem_of(), {}, clock.with(&cache)).fused);
    EXPECT_EQ(clock.reads, 2);
    EXPECT_TRUE(choose_head(*student, problem_of(), {}, later.with(&cache)).fused);
  }
  plans::PlanCache cache(folder.path(), "a GPU");
  const HeadChoice again = choose_head(*student, problem_of(), {}, later.with(&cache));
  EXPECT_TRUE(again.fused);
  EXPECT_NE(again.note.find("8.000 ms"), std::string::npos) << again.note;
  EXPECT_NE(again.note.find("measured before"), std::string::npos) << again.note;
  EXPECT_TRUE(choose_head(*student, problem_of(), {}, {&cache, {}}).fused) << "without a clock";
  EXPECT_EQ(later.reads, 0);

  HeadProblem other = problem_of();
  std::vector<HeadProblem> others(5, other);
  others[0].batch = 3;
  others[1].first_row = 0;
  others[2].loss = named_loss("dpm");
  others[3].loss.dpm.sigma = 0.5f;
  others[4].loss.mask = false;
  for (const HeadProblem& unlike : others) {
    EXPECT_FALSE(choose_head(*student, unlike, {}, later.with(&cache)).fused);
  }
  EXPECT_EQ(later.reads, 2 * static_cast<int>(others.size()));
  const auto fewer = make_model("mobilenet_unet", {.bins = 33});
  EXPECT_FALSE(choose_head(*fewer, problem_of(), {}, later.with(&cache)).fused);
}

TEST_F(HeadChoiceTest, WithoutAClockLogitsAreStored) {
  const TemporaryFolder folder;
  plans::PlanCache cache(folder.path(), "a GPU");
  for (plans::PlanCache* some : {static_cast<plans::PlanCache*>(nullptr), &cache}) {
    const HeadChoice choice = choose_head(*student, problem_of(), {}, {some, {}});
    EXPECT_FALSE(choice.fused);
    EXPECT_EQ(choice.note, "");
  }
  FakeClock clock{2.0, 1.0};
  EXPECT_TRUE(choose_head(*student, problem_of(), {}, clock.with(&cache)).fused) << "that was not remembered";
}

TEST_F(HeadChoiceTest, WhereThereIsNoChoiceNothingIsTimed) {
  FakeClock clock{2.0, 1.0};
  HeadProblem cpu = problem_of(), fp32 = problem_of();
  cpu.device = Device::kCpu;
  fp32.dtype = DType::kFloat;
  const auto regression = make_model("mobilenet_unet", {.head = Head::kRegression});
  const auto many = make_model("mobilenet_unet", {.bins = 400});
  EXPECT_FALSE(choose_head(*student, cpu, {}, clock.with(nullptr)).fused);
  EXPECT_FALSE(choose_head(*student, fp32, {}, clock.with(nullptr)).fused);
  EXPECT_FALSE(choose_head(*regression, problem_of(), {}, clock.with(nullptr)).fused);
  EXPECT_FALSE(choose_head(*many, problem_of(), {}, clock.with(nullptr)).fused);
  EXPECT_EQ(clock.reads, 0);
}

TEST_F(HeadChoiceTest, WhatIsAskedForIsDoneWherePossible) {
  FakeClock clock{2.0, 1.0};
  HeadProblem cpu = problem_of(), fp32 = problem_of();
  cpu.device = Device::kCpu;
  fp32.dtype = DType::kFloat;
  for (const bool wanted : {false, true}) {
    EXPECT_EQ(choose_head(*student, problem_of(), wanted, clock.with(nullptr)).fused, wanted);
    EXPECT_EQ(choose_head(*student, cpu, wanted, clock.with(nullptr)).fused, wanted);
    const HeadChoice impossible = choose_head(*student, fp32, wanted, clock.with(nullptr));
    EXPECT_FALSE(impossible.fused);
    EXPECT_EQ(impossible.note.empty(), !wanted);
  }
  EXPECT_EQ(clock.reads, 0);
}

class HeadTrialTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!built_with_cuda()) enable_emulated_cuda();
  }
  void SetUp() override {
    if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
    student->initialize(1);
    student->to(Device::kCuda);
  }
  static HeadProblem problem_of(const char* loss) {
    return {Device::kCuda, DType::kBf16, 2, 12, 8, 8, named_loss(loss)};
  }
  std::unique_ptr<DepthModel> student = make_model("mobilenet_unet", {.bins = 33});
};

TEST_F(HeadTrialTest, RunsBothWaysAndLeavesNothing) {
  const size_t before = memory_stats(Device::kCuda).in_use;
  for (const char* loss : {"tie_kd", "dpm", "depth"}) {
    const HeadTrial trial(*student, problem_of(loss));
    for (const bool fused : {false, true}) trial.run(fused);
    for (const StateEntry& entry : student->parameters()) EXPECT_FALSE(entry.tensor->grad().defined()) << entry.name;
  }
  // Scratch memory and tables stay.
  EXPECT_LT(memory_stats(Device::kCuda).in_use, before + (size_t{4} << 20));
}

TEST_F(HeadTrialTest, CanBeTimed) {
  const HeadTrial trial(*student, problem_of("tie_kd"));
  for (const bool fused : {false, true}) {
    const double ms = trial.milliseconds(fused, std::numeric_limits<double>::infinity());
    EXPECT_TRUE(std::isfinite(ms) && ms > 0) << ms;
  }
}

TEST_F(HeadTrialTest, IsNotMadeOnTheEmulator) {
  if (built_with_cuda()) GTEST_SKIP() << "skipped: this is a GPU";
  LibraryOptions timing = library_options();
  timing.measure = true;
  const test::WithOptions with(timing);
  const HeadChoice choice = choose_head(*student, problem_of("tie_kd"), {});
  EXPECT_FALSE(choice.fused);
  EXPECT_EQ(choice.note, "");
}

}  // namespace
}  // namespace depthstill
