// add, scale, reshape and cast.
#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(Add, SumsTwoTensors) {
  const Op op = [](const std::vector<Tensor>& in) { return add(in[0], in[1]); };
  const std::vector<Tensor> inputs = {random_tensor({2, 3, 5}, 1), random_tensor({2, 3, 5}, 2)};
  expect_gradients(op, inputs, {}, {0.1f, 1e-4});
  expect_same_on_devices(op, inputs, {}, 0.0);
  EXPECT_THROW(add(inputs[0], random_tensor({2, 15}, 3)), Error);
  EXPECT_THROW(add(inputs[0], to_bf16(inputs[1])), Error);
}

TEST(Add, SameTensorTwiceGetsBothGradients) {
  const Op op = [](const std::vector<Tensor>& in) { return add(in[0], scale(in[0], 3.0f)); };
  expect_gradients(op, {random_tensor({4, 7}, 1)}, {}, {0.1f, 1e-4});
}

TEST(Scale, MultipliesByANumber) {
  const Op op = [](const std::vector<Tensor>& in) { return scale(in[0], -1.75f); };
  const std::vector<Tensor> inputs = {random_tensor({3, 11}, 1)};
  expect_gradients(op, inputs, {}, {0.1f, 1e-4});
  expect_same_on_devices(op, inputs, {}, 0.0);
}

TEST(Reshape, KeepsElementsAndHistory) {
  const Op op = [](const std::vector<Tensor>& in) { return scale(reshape(in[0], {4, 6}), 2.0f); };
  const std::vector<Tensor> inputs = {random_tensor({2, 3, 4}, 1)};
  expect_gradients(op, inputs, {}, {0.1f, 1e-4});
  EXPECT_EQ(values_of(reshape(inputs[0], {24})), values_of(inputs[0]));
  EXPECT_THROW(reshape(inputs[0], {5, 5}), Error);
}

TEST(Cast, RoundsToBf16AndCastsTheGradientBack) {
  const Tensor x = random_tensor({5, 13}, 1);
  const Op op = [](const std::vector<Tensor>& in) { return cast(in[0], DType::kBf16); };
  const OpResult result = evaluate(op, {x}, {true}, Device::kCpu);
  EXPECT_EQ(result.y, values_of(to_bf16(x)));
  EXPECT_EQ(result.gradients[0], values_of(to_bf16(random_tensor({5, 13}, 77))));  // dy of evaluate()
  expect_same_on_devices(op, {x}, {}, 0.0);

  EXPECT_EQ(cast(x, DType::kFloat).raw(), x.raw());
  EXPECT_THROW(cast(x, DType::kInt32), Error);
}

}  // namespace
}  // namespace depthstill
