// Whole training steps at full size on the simulated H100: their memory in bytes, and that after the first steps
// nothing is allocated and the host waits for nothing.
#include "tests/dry_run/train_step.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "engine/allocator.h"
#include "engine/step_arena.h"
#include "kernels/core/dry_run.h"

namespace depthstill {
namespace {

struct Expected {
  const char* model;
  int64_t batch;
  DType dtype;
  size_t arena_bytes, live_peak_bytes;
  bool fused_head = false;
};

// Bytes of the tensors that a step makes itself: without parameters, moments, the batch and scratch memory.
const Expected kSteps[] = {
    {"mobilenet_unet", 1, DType::kBf16, 508639488, 508639488},
    {"mobilenet_unet", 8, DType::kBf16, 4066280960, 4066280960},
    {"mobilenet_unet", 32, DType::kBf16, 16263908864, 16263908864},
    {"mobilenet_unet", 32, DType::kBf16, 14798778880, 14787244544, true},
    {"mobilenet_unet", 8, DType::kFloat, 8126705152, 8126705152},
    {"resnet18_unet", 32, DType::kBf16, 11531223040, 11531223040},
    {"resnet50_unet", 32, DType::kBf16, 17170966528, 17170966528},
};

TEST(TrainStep, MemoryPlansInBytes) {
  enable_dry_run();
  std::printf("%-16s %5s %-5s %8s %8s %16s %16s %8s\n", "student", "batch", "type", "tensors", "kernels", "arena bytes",
              "live peak bytes", "above");
  for (const Expected& expected : kSteps) {
    DryStep step(expected.model, expected.batch, expected.dtype);
    if (expected.fused_head) step.fuse_head();
    StepArena arena(Device::kCuda);
    step();  // makes what is made once
    arena.run([&] { step(); });
    const MemoryPlan& plan = *arena.plan();
    const MemoryStats before = memory_stats(Device::kCuda);
    cuda::take_dry_run();
    arena.run([&] { step(); });
    const cuda::DryRun record = cuda::take_dry_run();
    const MemoryStats after = memory_stats(Device::kCuda);

    std::printf("%-16s %5d %-5s %8zu %8zu %16zu %16zu %7.2f%%\n", expected.model, static_cast<int>(expected.batch),
                name_of(expected.dtype), plan.offsets.size(), record.launches.size(), plan.bytes, plan.live_peak,
                100.0 * (static_cast<double>(plan.bytes) / static_cast<double>(plan.live_peak) - 1.0));
    EXPECT_EQ(plan.bytes, expected.arena_bytes);
    EXPECT_EQ(plan.live_peak, expected.live_peak_bytes);
    EXPECT_LE(static_cast<double>(plan.bytes), 1.02 * static_cast<double>(plan.live_peak));
    EXPECT_EQ(after.allocations, before.allocations);
    EXPECT_EQ(after.in_use, before.in_use);
    EXPECT_EQ(record.mallocs, 0);
    EXPECT_EQ(record.frees, 0);
    EXPECT_EQ(record.synchronizations + record.event_waits, 0);
    EXPECT_EQ(record.copies_to_host + record.copies_to_device, 0);
  }
}

}  // namespace
}  // namespace depthstill
