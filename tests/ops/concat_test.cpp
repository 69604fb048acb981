#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(Concat, JoinsChannels) {
  const Op op = [](const std::vector<Tensor>& in) { return concat(in[0], in[1]); };
  const std::vector<Tensor> inputs = {random_tensor({2, 3, 4, 5}, 1), random_tensor({2, 3, 4, 8}, 2)};
  expect_gradients(op, inputs, {}, {0.1f, 1e-4});
  expect_gradients(op, inputs, {false, true}, {0.1f, 1e-4});
  expect_same_on_devices(op, inputs, {}, 0.0);
  EXPECT_EQ(op(inputs).shape(), (Shape{2, 3, 4, 13}));
}

TEST(Concat, SaysWhatItNeeds) {
  const Tensor a = random_tensor({2, 3, 4, 5}, 1);
  EXPECT_THROW(concat(a, random_tensor({2, 4, 4, 5}, 2)), Error);
  EXPECT_THROW(concat(a, random_tensor({3, 4, 5}, 2)), Error);
  EXPECT_THROW(concat(a, to_bf16(a)), Error);
}

}  // namespace
}  // namespace depthstill
