// These tests count what timing a candidate asks of a simulated H100: its time is always 0 there.
#include "kernels/plans/timer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>

#include "engine/device.h"
#include "kernels/core/dry_run.h"
#include "kernels/core/error.h"
#include "kernels/core/runtime.h"

namespace depthstill::plans {
namespace {

constexpr double kNoBest = std::numeric_limits<double>::infinity();

Stream dry_stream() {
  cuda::enable_dry_run(size_t{1} << 40);
  return stream_of(Device::kCuda);
}

struct PlanTimer : ::testing::Test {
  void SetUp() override { cuda::take_dry_run(); }

  const Stream stream = dry_stream();
  int calls = 0;
};

TEST_F(PlanTimer, ReplaysAGraphOfSeveralRuns) {
  const double ms = median_ms(stream, kNoBest, [&] {
    ++calls;
    cuda::record_library_call("way");
  });
  EXPECT_EQ(ms, 0.0);
  EXPECT_EQ(calls, 2 + 10);
  const cuda::DryRun record = cuda::take_dry_run();
  EXPECT_EQ(record.graph_launches, 1 + 5);
  EXPECT_EQ(record.launches.size(), 2u + 6 * 10);
  EXPECT_EQ(record.synchronizations, 2 + 6);
}

TEST_F(PlanTimer, WhatCannotBeCapturedIsTheLastToBeTaken) {
  const double ms = median_ms(stream, kNoBest, [&] {
    ++calls;
    cuda::record_library_call("way");
    cuda::synchronize(stream);
  });
  EXPECT_EQ(ms, kNoBest);
  EXPECT_EQ(calls, 2 + 1);  // the third ended the capture
  const cuda::DryRun record = cuda::take_dry_run();
  EXPECT_EQ(record.graph_launches, 0);
  EXPECT_EQ(record.launches.size(), 2u);
  cuda::begin_capture(stream);  // possible: none was left open
  cuda::abandon_capture(stream);
}

TEST_F(PlanTimer, RunsOneByOneWhereTheHostWaitsForEachKernel) {
  setenv("DEPTHSTILL_SYNC", "1", 1);
  median_ms(stream, kNoBest, [&] { ++calls; });
  unsetenv("DEPTHSTILL_SYNC");
  EXPECT_EQ(calls, 2 + 1 + 10);
  EXPECT_EQ(cuda::take_dry_run().graph_launches, 0);
}

TEST_F(PlanTimer, LeavesTheHopelessAfterTwoRuns) {
  median_ms(stream, -1.0, [&] { ++calls; });
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(cuda::take_dry_run().graph_launches, 0);
}

TEST_F(PlanTimer, PassesOnWhatDoesNotRun) {
  EXPECT_THROW(median_ms(stream, kNoBest, [] { fail("does not run"); }), Error);
  EXPECT_EQ(cuda::take_dry_run().graph_launches, 0);
}

}  // namespace
}  // namespace depthstill::plans
