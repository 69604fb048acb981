#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

// Values at least 0.05 away from the kinks at 0 and 6.
Tensor inputs() {
  std::vector<float> values = random_values(2 * 3 * 5 * 7, 1, -3.0f, 9.0f);
  for (float& v : values) {
    if (std::abs(v) < 0.05f) v = 0.3f;
    if (std::abs(v - 6.0f) < 0.05f) v = 6.3f;
  }
  return tensor<float>({2, 3, 5, 7}, values);
}

TEST(Activation, GradientsAndDevices) {
  for (const Activation kind : {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
    SCOPED_TRACE(static_cast<int>(kind));
    const auto op = [&](const std::vector<Tensor>& in) { return activation(in[0], kind); };
    expect_gradients(op, {inputs()});
    expect_same_on_devices(op, {inputs()});
    expect_same_on_devices(op, {to_bf16(inputs())}, {}, 4e-3);
  }
}

TEST(Activation, LeavesASharedGradientAlone) {
  const Tensor x = inputs().set_requires_grad();
  const Tensor y = activation(x, Activation::kRelu), dy = random_tensor(y.shape(), 3);
  const auto before = to_vector<float>(dy);
  backward(y, dy);
  EXPECT_EQ(to_vector<float>(dy), before);
}

}  // namespace
}  // namespace depthstill
