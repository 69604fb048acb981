#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

Op depthwise(int stride, int dilation) {
  return [=](const std::vector<Tensor>& in) { return depthwise_conv2d(in[0], in[1], stride, dilation); };
}

TEST(DepthwiseConv2d, GradientsAndDevices) {
  for (const int stride : {1, 2}) {
    for (const int dilation : {1, 2, 4}) {
      SCOPED_TRACE(::testing::Message() << "stride " << stride << " dilation " << dilation);
      const std::vector<Tensor> in = {random_tensor({2, 7, 9, 19}, 1), random_tensor({3, 3, 19}, 2)};
      expect_gradients(depthwise(stride, dilation), in);
      expect_same_on_devices(depthwise(stride, dilation), in);
      expect_same_on_devices(depthwise(stride, dilation), {to_bf16(in[0]), in[1]}, {}, 4e-3);
    }
  }
}

TEST(DepthwiseConv2d, FiveByFiveAndUnequalPadding) {
  const Tensor x = random_tensor({2, 8, 10, 19}, 1);
  for (const int64_t kernel : {3, 5}) {
    for (const int stride : {1, 2}) {
      const Op op = [=](const std::vector<Tensor>& in) { return depthwise_conv2d(in[0], in[1], {stride, 1, 0, 1}); };
      const Tensor weight = random_tensor({kernel, kernel, 19}, 2);
      expect_gradients(op, {x, weight});
      expect_same_on_devices(op, {x, weight});
      expect_same_on_devices(op, {to_bf16(x), weight}, {}, 4e-3);
    }
  }
}

TEST(DepthwiseConv2d, ComputesOnlyTheGradientsThatAreNeeded) {
  const std::vector<Tensor> in = {random_tensor({1, 5, 6, 8}, 1), random_tensor({3, 3, 8}, 2)};
  const OpResult all = evaluate(depthwise(1, 2), in, {true, true}, Device::kCpu);
  const OpResult dx = evaluate(depthwise(1, 2), in, {true, false}, Device::kCpu);
  const OpResult dweight = evaluate(depthwise(1, 2), in, {false, true}, Device::kCpu);
  EXPECT_EQ(dx.gradients[0], all.gradients[0]);
  EXPECT_TRUE(dx.gradients[1].empty());
  EXPECT_EQ(dweight.gradients[1], all.gradients[1]);
  EXPECT_TRUE(dweight.gradients[0].empty());
}

TEST(DepthwiseConv2d, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({1, 4, 6, 5}, 1);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 3, 4}, 2), 1, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({7, 7, 5}, 2), 1, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 5, 5}, 2), 1, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 3, 5}, 2), {1, 1, 3, 0}), Error);
  EXPECT_THROW(depthwise_conv2d(x, to_bf16(random_tensor({3, 3, 5}, 2)), 1, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 3, 5}, 2), 3, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 3, 5}, 2), 1, 0), Error);
}

}  // namespace
}  // namespace depthstill
