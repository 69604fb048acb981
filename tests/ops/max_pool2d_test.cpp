#include <algorithm>

#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

// Distinct values, far enough apart for central differences.
Tensor inputs(const Shape& shape) {
  std::vector<float> values;
  for (int64_t i = 0; i < shape.numel(); ++i) values.push_back(0.05f * static_cast<float>(i) - 3.0f);
  std::shuffle(values.begin(), values.end(), std::mt19937(1));
  return tensor<float>(shape, values);
}

TEST(MaxPool2d, GradientsAndDevices) {
  struct Case {
    int kernel, stride, pad;
  };
  for (const Case& c : {Case{3, 2, 1}, Case{2, 2, 0}, Case{3, 1, 1}}) {
    SCOPED_TRACE(::testing::Message() << c.kernel << " " << c.stride << " " << c.pad);
    const auto op = [&](const std::vector<Tensor>& in) { return max_pool2d(in[0], c.kernel, c.stride, c.pad); };
    expect_gradients(op, {inputs({2, 6, 7, 5})});
    expect_same_on_devices(op, {inputs({2, 6, 7, 5})});
    expect_same_on_devices(op, {to_bf16(inputs({1, 8, 5, 16}))}, {}, 4e-3);
  }
}

TEST(MaxPool2d, GivesTheSameWithoutATape) {
  Tensor x = inputs({1, 5, 8, 3});
  const auto plain = to_vector<float>(max_pool2d(x, 3, 2, 1));
  x.set_requires_grad();
  EXPECT_EQ(to_vector<float>(max_pool2d(x, 3, 2, 1)), plain);
}

TEST(MaxPool2d, RefusesWhatDoesNotFit) {
  const Tensor x = inputs({1, 4, 6, 2});
  EXPECT_THROW(max_pool2d(x, 16, 1, 0), Error);
  EXPECT_THROW(max_pool2d(x, 3, 0, 1), Error);
  EXPECT_THROW(max_pool2d(x, 2, 2, 2), Error);
  EXPECT_THROW(max_pool2d(x, 7, 1, 1), Error);
  EXPECT_THROW(max_pool2d(random_tensor({4, 6}, 1), 2, 2, 0), Error);
}

}  // namespace
}  // namespace depthstill
