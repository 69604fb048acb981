#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(Gelu, GradientsAndDevices) {
  for (const GeluKind kind : {GeluKind::kErf, GeluKind::kTanh}) {
    const Op op = [kind](const std::vector<Tensor>& in) { return gelu(in[0], kind); };
    const std::vector<Tensor> in = {random_tensor({2, 7, 9}, 1, -3.0f, 3.0f)};
    expect_gradients(op, in, {}, {1e-2f, 1e-3});
    expect_same_on_devices(op, in, {}, 1e-6);
    expect_same_on_devices(op, {to_bf16(in[0])}, {}, 0x1p-8);
  }
}

TEST(Gelu, LeavesASharedGradientAlone) {
  Tensor x = random_tensor({3, 5}, 1).set_requires_grad();
  const Tensor y = gelu(x, GeluKind::kErf), dy = random_tensor({3, 5}, 2);
  const auto before = to_vector<float>(dy);
  backward(y, dy);
  EXPECT_EQ(to_vector<float>(dy), before);
}

}  // namespace
}  // namespace depthstill
