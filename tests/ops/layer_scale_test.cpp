#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

const Op kLayerScale = [](const std::vector<Tensor>& in) { return layer_scale(in[0], in[1], in[2]); };

TEST(LayerScale, GradientsAndDevices) {
  for (const Shape& shape : {Shape{2, 5, 19}, Shape{4, 19}, Shape{19}}) {
    const std::vector<Tensor> in = {random_tensor(shape, 1), random_tensor(shape, 2, -2.0f, 1.0f),
                                    random_tensor({19}, 3, 0.3f, 1.7f)};
    expect_gradients(kLayerScale, in, {}, {1e-2f, 1e-3});
    expect_same_on_devices(kLayerScale, in, {}, 1e-6);
    expect_same_on_devices(kLayerScale, {to_bf16(in[0]), to_bf16(in[1]), in[2]}, {}, 0x1p-8);
  }
}

TEST(LayerScale, GradientsOfOnlyWhatIsTrained) {
  const std::vector<Tensor> in = {random_tensor({4, 5}, 1), random_tensor({4, 5}, 2), random_tensor({5}, 3)};
  const OpResult all = evaluate(kLayerScale, in, {true, true, true}, Device::kCpu);
  for (size_t only = 0; only < 3; ++only) {
    std::vector<bool> differentiable(3);
    differentiable[only] = true;
    const OpResult one = evaluate(kLayerScale, in, differentiable, Device::kCpu);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(one.gradients[i], i == only ? all.gradients[i] : std::vector<float>()) << i << " of only " << only;
    }
  }
}

TEST(LayerScale, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({4, 6}, 1), gamma = random_tensor({6}, 2);
  EXPECT_THROW(layer_scale(x, random_tensor({6, 4}, 1), gamma), Error);
  EXPECT_THROW(layer_scale(x, to_bf16(x), gamma), Error);
  EXPECT_THROW(layer_scale(x, x, random_tensor({4}, 2)), Error);
  EXPECT_THROW(layer_scale(x, x, to_bf16(gamma)), Error);
}

}  // namespace
}  // namespace depthstill
