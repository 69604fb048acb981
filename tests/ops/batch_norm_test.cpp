#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

// x, weight, bias, running_mean, running_var
std::vector<Tensor> inputs(const Shape& shape) {
  const Shape channels{shape[3]};
  return {random_tensor(shape, 1, -2.0f, 3.0f), random_tensor(channels, 2, 0.5f, 2.0f), random_tensor(channels, 3),
          random_tensor(channels, 4), random_tensor(channels, 5, 0.5f, 2.0f)};
}
const std::vector<bool> kTrained = {true, true, true, false, false};

Op batch_norm_op(bool training, Activation act) {
  return [=](const std::vector<Tensor>& in) {
    return batch_norm(in[0], in[1], in[2], in[3], in[4], {.training = training, .activation = act});
  };
}

TEST(BatchNorm, Gradients) {
  for (const bool training : {true, false}) {
    for (const Activation act : {Activation::kNone, Activation::kSigmoid}) {  // activations without kinks
      SCOPED_TRACE(training ? "training" : "evaluation");
      expect_gradients(batch_norm_op(training, act), inputs({2, 5, 7, 18}), kTrained);
    }
  }
}

TEST(BatchNorm, SameOnDevices) {
  for (const bool training : {true, false}) {
    auto in = inputs({2, 9, 11, 40});
    expect_same_on_devices(batch_norm_op(training, Activation::kRelu6), in, kTrained);
    in[0] = to_bf16(in[0]);
    expect_same_on_devices(batch_norm_op(training, Activation::kRelu), in, kTrained, 4e-3);
  }
}

TEST(BatchNorm, TrainingMovesTheRunningStatistics) {
  const std::vector<float> values = {1.0f, 2.0f, 4.0f, 9.0f};  // mean 4, unbiased variance 38 / 3
  const Tensor x = tensor<float>({1, 2, 2, 1}, values), one = random_tensor({1}, 1);
  const std::vector<float> two = {2.0f}, three = {3.0f};
  const Tensor mean = tensor<float>({1}, two), var = tensor<float>({1}, three);
  batch_norm(x, one, one, mean, var, {.training = true, .momentum = 0.25f});
  EXPECT_FLOAT_EQ(item(mean), 0.75f * 2.0f + 0.25f * 4.0f);
  EXPECT_FLOAT_EQ(item(var), 0.75f * 3.0f + 0.25f * 38.0f / 3.0f);
  batch_norm(x, one, one, mean, var, {.training = false});
  EXPECT_FLOAT_EQ(item(mean), 0.75f * 2.0f + 0.25f * 4.0f);
}

// The statistics of the forward pass count, although the running ones have moved on before the backward pass.
TEST(BatchNorm, BackwardUsesTheStatisticsOfItsForward) {
  const auto in = inputs({1, 4, 4, 3});
  const auto op = [](const std::vector<Tensor>& t) {
    const Tensor y = batch_norm(t[0], t[1], t[2], t[3], t[4], {.training = false});
    batch_norm(t[0].detach(), t[1].detach(), t[2].detach(), t[3], t[4], {.training = true, .momentum = 1.0f});
    return y;
  };
  const OpResult moved = evaluate(op, in, kTrained, Device::kCpu);
  const OpResult fixed = evaluate(batch_norm_op(false, Activation::kNone), in, kTrained, Device::kCpu);
  EXPECT_EQ(moved.gradients, fixed.gradients);
}

TEST(BatchNorm, LeavesASharedGradientAlone) {
  auto in = inputs({1, 3, 4, 2});
  in[0].set_requires_grad();
  const Tensor y = batch_norm_op(true, Activation::kRelu)(in);
  const Tensor dy = random_tensor(y.shape(), 7);
  const auto before = to_vector<float>(dy);
  backward(y, dy);
  EXPECT_EQ(to_vector<float>(dy), before);
}

TEST(BatchNorm, RefusesWhatDoesNotFit) {
  const auto in = inputs({1, 4, 4, 3});
  const Tensor four = random_tensor({4}, 1);
  EXPECT_THROW(batch_norm(in[0], four, in[2], in[3], in[4], {}), Error);
  EXPECT_THROW(batch_norm(in[0], in[1], in[2], in[3], to_bf16(in[4]), {}), Error);
  EXPECT_THROW(batch_norm_op(true, Activation::kNone)(inputs({1, 1, 1, 3})), Error);
  EXPECT_NO_THROW(batch_norm_op(false, Activation::kNone)(inputs({1, 1, 1, 3})));
}

}  // namespace
}  // namespace depthstill
