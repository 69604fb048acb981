#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

constexpr GradientCheck kLinear{0.1f, 1e-4};  // a linear op, so the step may be large

TEST(SpaceToDepth, BlocksOfPixelsBecomeChannels) {
  const std::vector<float> x = {0, 1, 2, 3, 10, 11, 12, 13};  // (1, 2, 4, 1)
  const Tensor y = space_to_depth(tensor<float>({1, 2, 4, 1}, x), 2);
  EXPECT_EQ(y.shape(), (Shape{1, 1, 2, 4}));
  EXPECT_EQ(to_vector<float>(y), (std::vector<float>{0, 1, 10, 11, 2, 3, 12, 13}));
  EXPECT_EQ(to_vector<float>(depth_to_space(y, 2)), x);
}

TEST(SpaceToDepth, GradientsAndDevices) {
  const Op there = [](const std::vector<Tensor>& in) { return space_to_depth(in[0], 3); };
  const Op back = [](const std::vector<Tensor>& in) { return depth_to_space(in[0], 3, in[1]); };
  const Tensor x = random_tensor({2, 6, 9, 5}, 1), deep = random_tensor({2, 2, 3, 45}, 2), bias = random_tensor({5}, 3);
  expect_gradients(there, {x}, {}, kLinear);
  expect_gradients(back, {deep, bias}, {}, kLinear);
  expect_gradients(back, {deep, Tensor()}, {}, kLinear);
  expect_same_on_devices(there, {x}, {}, 1e-6);
  expect_same_on_devices(back, {deep, bias}, {}, 1e-6);
  expect_same_on_devices(back, {to_bf16(deep), bias}, {}, 4e-3);
}

TEST(SpaceToDepth, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({1, 4, 6, 8}, 1);
  EXPECT_THROW(space_to_depth(x, 3), Error);
  EXPECT_THROW(space_to_depth(x, 0), Error);
  EXPECT_THROW(depth_to_space(x, 3), Error);
  EXPECT_THROW(depth_to_space(x, 2, random_tensor({8}, 2)), Error);
}

}  // namespace
}  // namespace depthstill
