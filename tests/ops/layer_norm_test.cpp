#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

const Op kLayerNorm = [](const std::vector<Tensor>& in) { return layer_norm(in[0], in[1], in[2], 1e-2f); };

TEST(LayerNorm, OverTheLastDimension) {
  for (const Shape& shape : {Shape{2, 5, 19}, Shape{4, 19}, Shape{19}, Shape{2, 2, 3, 19}}) {
    const std::vector<Tensor> in = {random_tensor(shape, 1, -1.0f, 2.0f), random_tensor({19}, 2, 0.5f, 2.0f),
                                    random_tensor({19}, 3)};
    expect_gradients(kLayerNorm, in, {}, {1e-2f, 2e-3});
    expect_same_on_devices(kLayerNorm, in, {}, 1e-5);
    expect_same_on_devices(kLayerNorm, {to_bf16(in[0]), in[1], in[2]}, {}, 0x1p-7);
  }
}

TEST(LayerNorm, GradientsOfOnlyWhatIsTrained) {
  const std::vector<Tensor> in = {random_tensor({4, 5}, 1), random_tensor({5}, 2, 0.5f, 2.0f), random_tensor({5}, 3)};
  const OpResult all = evaluate(kLayerNorm, in, {true, true, true}, Device::kCpu);
  for (size_t only = 0; only < 3; ++only) {
    std::vector<bool> differentiable(3);
    differentiable[only] = true;
    const OpResult one = evaluate(kLayerNorm, in, differentiable, Device::kCpu);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(one.gradients[i], i == only ? all.gradients[i] : std::vector<float>()) << i << " of only " << only;
    }
  }
}

TEST(LayerNorm, LeavesASharedGradientAlone) {
  Tensor x = random_tensor({3, 5}, 1).set_requires_grad();
  const Tensor y = layer_norm(x, random_tensor({5}, 2), random_tensor({5}, 3), 1e-6f), dy = random_tensor({3, 5}, 4);
  const auto before = to_vector<float>(dy);
  backward(y, dy);
  EXPECT_EQ(to_vector<float>(dy), before);
}

TEST(LayerNorm, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({4, 6}, 1), ok = random_tensor({6}, 2);
  EXPECT_THROW(layer_norm(x, random_tensor({4}, 2), ok, 1e-6f), Error);
  EXPECT_THROW(layer_norm(x, ok, Tensor(), 1e-6f), Error);
  EXPECT_THROW(layer_norm(x, to_bf16(ok), ok, 1e-6f), Error);
  EXPECT_THROW(layer_norm(empty({0, 6}), ok, ok, 1e-6f), Error);
}

}  // namespace
}  // namespace depthstill
