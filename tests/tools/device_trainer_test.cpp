// Whole training runs on the device `cuda`, emulated where there is none: batches through the ring, steps in the arena
// and as a graph, losses read late.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "engine/io/text_file.h"
#include "kernels/core/library_options.h"
#include "kernels/core/runtime.h"
#include "tests/tools/small_recipe.h"
#include "tools/interrupt.h"
#include "tools/report/run_log.h"
#include "tools/train_run.h"

namespace depthstill {
namespace {

using testing_files::TemporaryFolder;

class DeviceTrainer : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!built_with_cuda()) enable_emulated_cuda();
    options_before_ = library_options();
    library_options().deterministic = true;
    folder_ = new TemporaryFolder;
    testing_files::write_small_set(*folder_, 6, 64, 32);
    const std::string one = "images/0.png depth/0.png 50.5\n";
    write_file(*folder_ / "one.txt", one);
    write_file(*folder_ / "three.txt", one + "images/1.png depth/1.png 50.5\nimages/2.png depth/2.png 50.5\n");
    if (!available(Device::kCuda)) return;
    TrainOptions plain = into("plain");
    plain.graph = false;
    train(recipe(), plain);
  }
  static void TearDownTestSuite() {
    delete folder_;
    library_options() = options_before_;
  }
  void SetUp() override {
    if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  }
  ~DeviceTrainer() override { cuda::set_pace(cuda::Pace::kAtOnce); }

  // Three steps an epoch.
  static Recipe recipe() { return testing_files::recipe_of_small_set(*folder_, 1e-5); }
  static TrainOptions into(const std::string& name, Device device = Device::kCuda) {
    TrainOptions options;
    options.out = *folder_ / name;
    options.device = device;
    return options;
  }
  static std::vector<double> losses(const std::string& run) {
    std::vector<double> values;
    for (const StepRecord& step : read_run_log(*folder_ / (run + "/metrics.jsonl")).steps)
      values.push_back(step.losses.at(0).second);
    return values;
  }
  static void expect_same_runs(const std::string& a, const std::string& b) {
    EXPECT_EQ(losses(a), losses(b));
    const SafetensorsFile first(*folder_ / (a + "/last.safetensors")), second(*folder_ / (b + "/last.safetensors"));
    ASSERT_EQ(first.tensors().size(), second.tensors().size());
    for (const StoredTensor& tensor : first.tensors()) {
      const auto x = first.bytes(tensor), y = second.bytes(second.at(tensor.name));
      EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin(), y.end())) << tensor.name;
    }
  }

  static inline TemporaryFolder* folder_ = nullptr;

 private:
  static inline LibraryOptions options_before_;
};

TEST_F(DeviceTrainer, TrainsAsTheCpuDoes) {
  train(recipe(), into("cpu", Device::kCpu));
  const std::vector<double> cpu = losses("cpu"), device = losses("plain");
  ASSERT_EQ(cpu.size(), 6u);
  ASSERT_EQ(device.size(), 6u);
  for (size_t i = 0; i < cpu.size(); ++i) EXPECT_NEAR(device[i], cpu[i], 2e-3 * cpu[i]) << "step " << i + 1;
}

TEST_F(DeviceTrainer, AGraphChangesNothing) {
  for (const cuda::Pace pace : {cuda::Pace::kWhenAwaited, cuda::Pace::kOthersFirst}) {
    cuda::set_pace(pace);
    const std::string run = pace == cuda::Pace::kWhenAwaited ? "late" : "others_first";
    train(recipe(), into(run));
    expect_same_runs(run, "plain");
  }
}

// Batches of 2 images and 1 in turn, and a validation: work beside the graph, whose memory it must leave alone.
TEST_F(DeviceTrainer, AGraphChangesNothingAmongOtherWork) {
  Recipe mixed = recipe();
  mixed.data.train = {"three.txt", "teacher"};
  mixed.train.drop_last = false;
  mixed.train.epochs = 5;
  mixed.train.log_every = 3;
  mixed.data.val = {"one.txt", ""};
  mixed.eval.every = 4;
  TrainOptions plain = into("mixed_plain"), graph = into("mixed_graph");
  plain.dtype = graph.dtype = DType::kBf16;
  plain.fused_head = graph.fused_head = true;
  plain.graph = false;
  train(mixed, plain);
  cuda::set_pace(cuda::Pace::kOthersFirst);
  train(mixed, graph);
  ASSERT_EQ(losses("mixed_plain").size(), 3u);
  expect_same_runs("mixed_graph", "mixed_plain");
}

// There is no clock to choose the head by: neither with --deterministic nor on the emulator.
TEST_F(DeviceTrainer, StoresLogitsWhereNothingIsTimed) {
  Recipe one = recipe();
  one.train.max_steps = 1;
  TrainOptions usual = into("usual"), stored = into("stored");
  usual.dtype = stored.dtype = DType::kBf16;
  stored.fused_head = false;
  train(one, usual);
  train(one, stored);
  EXPECT_EQ(SafetensorsFile(*folder_ / "usual/last.safetensors").metadata().at("fused_head"), "0");
  expect_same_runs("usual", "stored");
}

TEST_F(DeviceTrainer, AnInterruptedRunResumesBitForBit) {
  install_interrupt_handlers();
  TrainOptions options = into("halves");
  options.on_step = [](int64_t updates) {
    if (updates == 5) std::raise(SIGTERM);  // step 5 of 6, after the first graphs
  };
  EXPECT_THROW(train(recipe(), options), Interrupted);
  clear_interrupt();
  options.on_step = nullptr;
  options.resume = true;
  train(recipe(), options);
  expect_same_runs("halves", "plain");
}

TEST_F(DeviceTrainer, ANonFiniteLossIsFoundWhereTheHostWaits) {
  Recipe wild = recipe();
  wild.train.log_every = 100;
  wild.schedule.kind = Schedule::Kind::kConstant;
  wild.schedule.lr = 1e18;
  try {
    train(wild, into("wild"));
    FAIL() << "expected an error";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.rfind("steps 1 to 3 (epoch 1): ", 0), 0u) << message;
    EXPECT_NE(message.find("is not finite; no checkpoint was written yet"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace depthstill
