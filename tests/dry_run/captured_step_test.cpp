// Capturing a training step: on the simulated H100 the graph is the list of what a GPU would be given.
#include "engine/captured_step.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/core/dry_run.h"
#include "tests/dry_run/train_step.h"

namespace depthstill {
namespace {

void expect_counts(const std::vector<Tensor>& counters, int64_t expected) {
  ASSERT_FALSE(counters.empty());
  for (const Tensor& counter : counters) EXPECT_EQ(*counter.data<int64_t>(), expected);
}

std::vector<std::string> names_of(const cuda::DryRun& record) {
  std::vector<std::string> names;
  for (const cuda::Launch& launch : record.launches) {
    if (launch.where != "copy" && launch.where != "zero") names.push_back(launch.where);
  }
  return names;
}

TEST(CapturedTrainStep, IsOneGraphFromTheFourthTimeOn) {
  enable_dry_run();
  DryStep step("mobilenet_unet", 32, DType::kBf16);
  CapturedStep captured(Device::kCuda, true, step.counters(), [](const std::string& line) { FAIL() << line; });
  std::vector<std::string> eager;
  for (int64_t i = 1; i <= 6; ++i) {
    cuda::take_dry_run();
    captured.run([&] { step(); });
    const cuda::DryRun record = cuda::take_dry_run();
    SCOPED_TRACE(i);
    expect_counts(step.counters(), i);
    if (i == 3) eager = names_of(record);
    EXPECT_EQ(captured.captured(), i >= 4);
    EXPECT_EQ(record.graph_launches, i >= 4 ? 1 : 0);
    if (i < 3) continue;
    EXPECT_EQ(names_of(record), eager);
    EXPECT_EQ(record.synchronizations + record.event_waits, 0);
    EXPECT_EQ(record.copies_to_host + record.copies_to_device, 0);
    EXPECT_EQ(record.mallocs + record.frees, 0);
  }
}

TEST(CapturedTrainStep, EveryKindOfStudentCanBeCaptured) {
  enable_dry_run();
  for (const char* model : {"resnet50_unet", "dpt_s", "midas_small"}) {
    SCOPED_TRACE(model);
    DryStep step(model, 2, DType::kBf16);
    CapturedStep captured(Device::kCuda, true, step.counters(), [](const std::string& line) { FAIL() << line; });
    for (int i = 0; i < 4; ++i) captured.run([&] { step(); });
    EXPECT_TRUE(captured.captured());
  }
}

TEST(CapturedTrainStep, RunsWithoutAGraphOnDemand) {
  enable_dry_run();
  DryStep step("resnet18_unet", 2, DType::kBf16);
  CapturedStep captured(Device::kCuda, false, step.counters(), [](const std::string& line) { FAIL() << line; });
  cuda::take_dry_run();
  for (int i = 0; i < 5; ++i) captured.run([&] { step(); });
  EXPECT_FALSE(captured.captured());
  EXPECT_NE(captured.plan(), nullptr);
  EXPECT_EQ(cuda::take_dry_run().graph_launches, 0);
  expect_counts(step.counters(), 5);
}

TEST(CapturedTrainStep, FallsBackWhereAStepCannotBeCaptured) {
  enable_dry_run();
  DryStep step("resnet18_unet", 2, DType::kBf16);
  std::vector<std::string> lines;
  CapturedStep captured(Device::kCuda, true, step.counters(), [&](const std::string& line) { lines.push_back(line); });
  int runs = 0;
  cuda::take_dry_run();
  for (int64_t i = 1; i <= 6; ++i) {
    captured.run([&] {
      ++runs;
      step();
      synchronize(Device::kCuda);
    });
    expect_counts(step.counters(), i);
  }
  EXPECT_FALSE(captured.captured());
  EXPECT_EQ(runs, 7);  // the fourth was begun twice
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0],
            "steps run without a CUDA graph, for it could not be captured: dry run: waiting for a stream while a graph "
            "is captured, which CUDA refuses");
  EXPECT_EQ(cuda::take_dry_run().graph_launches, 0);
}

TEST(CapturedTrainStep, AFailedStepLeavesNothingThatCannotBeFreed) {
  enable_dry_run();
  CapturedStep captured(Device::kCuda, false, {}, nullptr);
  DryStep step("resnet18_unet", 1, DType::kBf16);
  for (int i = 0; i < 3; ++i) captured.run([&] { step(); });
  EXPECT_THROW(captured.run([&] {
    step.backward_only();
    fail("the device is gone");
  }),
               Error);
}

TEST(CapturedTrainStep, LeavesScratchOfTheGraphAlone) {
  enable_dry_run();
  DryStep step("resnet18_unet", 2, DType::kBf16);
  CapturedStep captured(Device::kCuda, true, step.counters(), [](const std::string& line) { FAIL() << line; });
  for (int i = 0; i < 4; ++i) captured.run([&] { step(); });
  Scratch& scratch = *stream_of(Device::kCuda).scratch;
  const void* of_graph = scratch.get(1);
  const void* larger = scratch.get(size_t{3} << 30);
  EXPECT_NE(larger, of_graph);
  const Tensor any = empty({1}, DType::kUint8, Device::kCuda);
  EXPECT_NE(any.raw(), of_graph);
}

}  // namespace
}  // namespace depthstill
