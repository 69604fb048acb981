#include "engine/ops.h"
#include "kernels/core/library_options.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

const Op kLinear = [](const std::vector<Tensor>& in) { return linear(in[0], in[1], in[2]); };

TEST(Linear, OverTheLastDimension) {
  for (const Shape& shape : {Shape{2, 7, 9}, Shape{5, 9}, Shape{9}, Shape{2, 3, 4, 9}}) {
    const std::vector<Tensor> in = {random_tensor(shape, 1), random_tensor({6, 9}, 2), random_tensor({6}, 3)};
    Shape expected = shape;
    const Tensor y = kLinear(in);
    EXPECT_EQ(y.shape().rank(), shape.rank());
    EXPECT_EQ(y.size(shape.rank() - 1), 6);
    EXPECT_EQ(y.numel(), expected.numel() / 9 * 6);
    expect_gradients(kLinear, in, {}, {1e-2f, 1e-3});
    expect_same_on_devices(kLinear, in);
  }
}

TEST(Linear, WithoutBiasInBf16) {
  const std::vector<Tensor> in = {to_bf16(random_tensor({3, 5, 40}, 1)), random_tensor({17, 40}, 2), Tensor()};
  EXPECT_EQ(kLinear(in).dtype(), DType::kBf16);
  EXPECT_LE(relative_error(values_of(kLinear(in)), values_of(linear(cast(in[0], DType::kFloat), in[1], Tensor()))),
            0x1p-8);
  expect_same_on_devices(kLinear, in, {true, true, false}, 0x1p-8);
}

TEST(Linear, GradientsOfOnlyWhatIsTrained) {
  const std::vector<Tensor> in = {random_tensor({4, 5}, 1), random_tensor({7, 5}, 2), random_tensor({7}, 3)};
  const OpResult all = evaluate(kLinear, in, {true, true, true}, Device::kCpu);
  for (size_t only = 0; only < 3; ++only) {
    std::vector<bool> differentiable(3);
    differentiable[only] = true;
    const OpResult one = evaluate(kLinear, in, differentiable, Device::kCpu);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(one.gradients[i], i == only ? all.gradients[i] : std::vector<float>()) << i << " of only " << only;
    }
  }
}

// On a GPU dbias comes from a kernel of its own or from the epilogue of dweight's product, whichever is faster.
TEST(Linear, BothWaysToTheBiasGradientAgree) {
  if (!second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  for_each_candidate({0, 1, 2, 3, 4, 5, 6, 7}, [] {
    const std::vector<Tensor> in = {random_tensor({50, 32}, 1), random_tensor({24, 32}, 2), random_tensor({24}, 3)};
    expect_same_on_devices(kLinear, in);
    expect_same_on_devices(kLinear, {to_bf16(in[0]), in[1], in[2]}, {}, 2e-2);
  });
}

TEST(Linear, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({4, 6, 5}, 1);
  EXPECT_THROW(linear(x, random_tensor({7, 4}, 2), Tensor()), Error);
  EXPECT_THROW(linear(x, random_tensor({7, 5, 1}, 2), Tensor()), Error);
  EXPECT_THROW(linear(x, random_tensor({7, 5}, 2), random_tensor({6}, 3)), Error);
  EXPECT_THROW(linear(x, to_bf16(random_tensor({7, 5}, 2)), Tensor()), Error);
  EXPECT_THROW(linear(empty({0, 5}), random_tensor({7, 5}, 2), Tensor()), Error);
}

}  // namespace
}  // namespace depthstill
