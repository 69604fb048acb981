// A captured step on the second device (a GPU, or the emulator, which plans memory but captures nothing) against the
// same steps run one by one. What capturing itself does is tested in a dry run (tests/dry_run).
#include "engine/captured_step.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/allocator.h"
#include "engine/init.h"
#include "engine/nn.h"
#include "engine/ops_loss.h"
#include "engine/optim.h"
#include "tests/ops/op_test.h"
#include "tests/paces.h"

namespace depthstill {
namespace {

class SmallNet : public Module {
 public:
  SmallNet() : first({.in = 3, .out = 8, .kernel = 3}), norm(8, Activation::kRelu), last({.in = 8, .out = 1}) {
    add_child("first", first);
    add_child("norm", norm);
    add_child("last", last);
    uint32_t seed = 5;
    for (const StateEntry& entry : parameters()) {
      copy_(*entry.tensor, test::random_tensor(entry.tensor->shape(), seed++));
    }
  }
  Tensor forward(const Tensor& x) {
    const Tensor y = last.forward(norm.forward(first.forward(x)));
    return reshape(y, {y.size(0), y.size(1), y.size(2)});
  }

  Conv2d first;
  BatchNorm2d norm;
  Conv2d last;
};

struct Result {
  std::vector<std::vector<float>> state;
  std::vector<float> losses;
  int64_t batches = 0;
};

constexpr int kSteps = 7;

Result train_small(Device device, bool captured) {
  SmallNet net;
  net.to(device);
  net.train();
  AdamW optimiser(net.parameter_tensors(), {});
  const Tensor image = zeros({2, 9, 7, 3}, DType::kFloat, device), target = zeros({2, 9, 7}, DType::kFloat, device);
  const Tensor loss_value = zeros({1}, DType::kFloat, device);
  const auto step = [&] {
    net.clear_grads();
    const Tensor loss = l1_loss(net.forward(image), target, {.mask = false});
    backward(loss);
    optimiser.step();
    net.clear_grads();
    copy_(loss_value, loss);
  };
  CapturedStep capture(device, true, {net.norm.num_batches_tracked}, [](const std::string& line) { FAIL() << line; });
  Result result;
  for (int i = 0; i < kSteps; ++i) {
    copy_(image, test::random_tensor(image.shape(), 100 + static_cast<uint32_t>(i)));
    copy_(target, test::random_tensor(target.shape(), 200 + static_cast<uint32_t>(i)));
    optimiser.set_lr(1e-2 / (i + 1));
    captured ? capture.run(step) : step();
    result.losses.push_back(item(loss_value));
  }
  EXPECT_EQ(capture.plan() != nullptr, captured && device == Device::kCuda);
  EXPECT_EQ(capture.captured(), captured && device == Device::kCuda);
  for (const StateEntry& entry : net.state()) {
    if (entry.tensor->dtype() == DType::kFloat) result.state.push_back(to_vector<float>(*entry.tensor));
  }
  result.batches = *net.norm.num_batches_tracked.data<int64_t>();
  EXPECT_EQ(optimiser.updates(), kSteps);
  return result;
}

void expect_same(Device device) {
  const Result eager = train_small(device, false), captured = train_small(device, true);
  EXPECT_EQ(eager.losses, captured.losses);
  EXPECT_EQ(eager.state, captured.state);
  EXPECT_EQ(captured.batches, kSteps);
}

TEST(CapturedStep, ChangesNothingOnTheCpu) { expect_same(Device::kCpu); }

TEST(CapturedStep, GivesTheSameBitsAsAGraph) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  const LibraryOptions before = library_options();
  library_options().deterministic = true;  // the libraries' first choice need not be
  test::at_every_pace([] { expect_same(Device::kCuda); });
  library_options() = before;
}

TEST(CapturedStep, RefusesCountersOfAnotherKind) {
  EXPECT_THROW(CapturedStep(Device::kCpu, true, {zeros({1})}, nullptr), Error);
}

}  // namespace
}  // namespace depthstill
