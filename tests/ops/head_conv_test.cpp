#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

Op head_with(Activation kind) {
  return [kind](const std::vector<Tensor>& in) { return head_conv(in[0], in[1], in[2], kind); };
}

std::vector<Tensor> inputs(int64_t channels) {
  return {random_tensor({2, 5, 7, channels}, 1), random_tensor({1, 1, 1, channels}, 2, -1.0f, 1.5f),
          random_tensor({1}, 3, 0.2f, 0.4f)};
}

TEST(HeadConv, GradientsAndDevices) {
  for (const int64_t channels : {int64_t{32}, int64_t{19}}) {
    const std::vector<Tensor> in = inputs(channels);
    expect_gradients(head_with(Activation::kNone), in, {}, {1e-2f, 1e-3});
    for (const Activation kind : {Activation::kNone, Activation::kRelu}) {
      expect_same_on_devices(head_with(kind), in, {}, 1e-6);
      expect_same_on_devices(head_with(kind), {to_bf16(in[0]), in[1], in[2]}, {}, 0x1p-8);
    }
  }
}

// The convolution of one channel, in fp32, is what it has to be; and a map in bf16 is not rounded on its way out.
TEST(HeadConv, IsTheConvolutionWithAResultInFp32) {
  const std::vector<Tensor> in = inputs(32);
  for (const Activation kind : {Activation::kNone, Activation::kRelu}) {
    const Op conv = [kind](const std::vector<Tensor>& x) { return conv2d(x[0], x[1], x[2], {.activation = kind}); };
    const OpResult expected = evaluate(conv, in, {true, true, true}, Device::kCpu);
    const OpResult found = evaluate(head_with(kind), in, {true, true, true}, Device::kCpu);
    EXPECT_LE(relative_error(found.y, expected.y), 1e-6);
    for (size_t i = 0; i < in.size(); ++i) EXPECT_LE(relative_error(found.gradients[i], expected.gradients[i]), 1e-6);
  }
  const Tensor rounded = to_bf16(in[0]);
  const Tensor y = head_conv(rounded, in[1], in[2], Activation::kNone);
  EXPECT_EQ(y.dtype(), DType::kFloat);
  EXPECT_LE(
      relative_error(values_of(y), values_of(head_conv(cast(rounded, DType::kFloat), in[1], in[2], Activation::kNone))),
      1e-6);
}

// Above a ReLU the gradient goes to where that convolution wants it, with the sums for its bias.
TEST(HeadConv, GradientsThroughTheActivationBelow) {
  const std::vector<Tensor> in = {random_tensor({1, 6, 5, 3}, 4), random_tensor({8, 3, 3, 3}, 5), random_tensor({8}, 6),
                                  random_tensor({1, 1, 1, 8}, 7), random_tensor({1}, 8)};
  const auto chain = [](bool fused) -> Op {
    return [fused](const std::vector<Tensor>& x) {
      const Conv2dOptions same{
          .pad_top = 1, .pad_bottom = 1, .pad_left = 1, .pad_right = 1, .activation = Activation::kRelu};
      const Tensor below = conv2d(x[0], x[1], x[2], same);
      return fused ? head_conv(below, x[3], x[4], Activation::kRelu)
                   : activation(conv2d(below, x[3], x[4], {}), Activation::kRelu);
    };
  };
  const std::vector<bool> all(in.size(), true);
  const OpResult expected = evaluate(chain(false), in, all, Device::kCpu);
  const OpResult found = evaluate(chain(true), in, all, Device::kCpu);
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_LE(relative_error(found.gradients[i], expected.gradients[i]), 1e-5) << "input " << i;
  }
  expect_same_on_devices(chain(true), in, all, 1e-5);
}

TEST(HeadConv, RefusesWhatDoesNotFit) {
  const std::vector<Tensor> in = inputs(6);
  EXPECT_THROW(head_conv(reshape(in[0], {2, 35, 6}), in[1], in[2], Activation::kNone), Error);
  EXPECT_THROW(head_conv(in[0], random_tensor({2, 1, 1, 6}, 1), in[2], Activation::kNone), Error);
  EXPECT_THROW(head_conv(in[0], to_bf16(in[1]), in[2], Activation::kNone), Error);
  EXPECT_THROW(head_conv(in[0], in[1], random_tensor({6}, 1), Activation::kNone), Error);
  EXPECT_THROW(head_conv(in[0], in[1], in[2], Activation::kSigmoid), Error);
}

}  // namespace
}  // namespace depthstill
