// Arithmetic of which losses are composed: sub, mul, div, abs, exp, log, square, clamp_max; means and sums with masks.
#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

// The values lie away from 0 and from `kink`, on both sides of them.
Tensor away_from(float kink, uint32_t seed) {
  std::vector<float> values = random_values(2 * 3 * 5, seed, -2.0f, 2.0f);
  for (float& v : values) {
    for (const float point : {0.0f, kink})
      if (std::abs(v - point) < 0.1f) v = point + (v < point ? -0.2f : 0.2f);
  }
  return tensor<float>({2, 3, 5}, values);
}

TEST(Pointwise, OfTwoTensors) {
  const std::vector<Tensor> inputs = {random_tensor({2, 3, 5}, 1), random_tensor({2, 3, 5}, 2, 0.5f, 2.0f)};
  for (Tensor (*const f)(const Tensor&, const Tensor&) : {sub, mul, div}) {
    const Op op = [f](const std::vector<Tensor>& in) { return f(in[0], in[1]); };
    expect_gradients(op, inputs, {}, {0.01f, 2e-3});
    expect_gradients(op, inputs, {false, true}, {0.01f, 2e-3});
    expect_same_on_devices(op, inputs, {}, 1e-6);
    EXPECT_THROW(f(inputs[0], random_tensor({2, 15}, 3)), Error);
    EXPECT_THROW(f(inputs[0], to_bf16(inputs[1])), Error);
  }
}

TEST(Pointwise, OfOneTensor) {
  const Op clamp = [](const std::vector<Tensor>& in) { return clamp_max(in[0], 0.75f); };
  for (Tensor (*const f)(const Tensor&) : {abs, exp, square}) {
    const Op op = [f](const std::vector<Tensor>& in) { return f(in[0]); };
    expect_gradients(op, {away_from(0.0f, 1)}, {}, {0.01f, 2e-3});
    expect_same_on_devices(op, {away_from(0.0f, 1)}, {}, 1e-6);
    expect_same_on_devices(op, {to_bf16(away_from(0.0f, 1))}, {}, 1e-2);
  }
  const Op logarithm = [](const std::vector<Tensor>& in) { return log(in[0]); };
  expect_gradients(logarithm, {random_tensor({2, 3, 5}, 1, 0.5f, 3.0f)}, {}, {0.01f, 2e-3});
  expect_same_on_devices(logarithm, {random_tensor({2, 3, 5}, 1, 0.5f, 3.0f)}, {}, 1e-6);
  expect_gradients(clamp, {away_from(0.75f, 1)}, {}, {0.01f, 2e-3});
  expect_same_on_devices(clamp, {away_from(0.75f, 1)}, {}, 0.0);
}

TEST(Pointwise, MeanAndSumCountWhatTheMaskLetsThrough) {
  const Tensor x = random_tensor({2, 3, 5}, 1);
  std::vector<float> depths(30, 2.0f);
  for (size_t i = 0; i < 30; i += 4) depths[i] = i % 8 == 0 ? 0.0f : NAN;
  for (Tensor (*const f)(const Tensor&, const Tensor&) : {mean, sum}) {
    for (const bool masked : {false, true}) {
      const Op op = [&](const std::vector<Tensor>& in) {
        const Tensor target = to_device(tensor<float>({2, 3, 5}, depths), in[0].device());
        return f(in[0], masked ? depth_mask(target, 1) : Tensor());
      };
      expect_gradients(op, {x}, {}, {0.1f, 1e-3});
      expect_same_on_devices(op, {x}, {}, 1e-6);
    }
  }
  const Tensor mask = depth_mask(tensor<float>({2, 3, 5}, depths), 1);
  double expected = 0;
  const std::vector<float> values = values_of(x);
  int count = 0;
  for (size_t i = 0; i < 30; ++i) {
    if (i % 4 == 0 || i / 5 % 3 == 0) continue;
    expected += static_cast<double>(values[i]);
    ++count;
  }
  EXPECT_NEAR(static_cast<double>(item(sum(x, mask))), expected, 1e-6);
  EXPECT_NEAR(static_cast<double>(item(mean(x, mask))), expected / count, 1e-6);
  EXPECT_EQ(item(mean(x, depth_mask(zeros({2, 3, 5})))), 0.0f);
  EXPECT_THROW(mean(to_bf16(x)), Error);
  EXPECT_THROW(mean(x, depth_mask(zeros({3, 2, 5}))), Error);
  EXPECT_THROW(depth_mask(x, 3), Error);
}

// A pixel without a target may have a logarithm of 0: its gradient is 0, not NaN.
TEST(Pointwise, WhatIsMaskedSendsBackNothing) {
  Tensor x = tensor<float>({1, 1, 3}, std::vector<float>{0.0f, 2.0f, -1.0f});
  x.set_requires_grad();
  const Tensor target = tensor<float>({1, 1, 3}, std::vector<float>{0.0f, 3.0f, 0.0f});
  backward(mean(square(sub(log(x), log(target))), depth_mask(target)));
  const std::vector<float> gradient = values_of(x.grad());
  EXPECT_EQ(gradient[0], 0.0f);
  EXPECT_NEAR(gradient[1], 2.0f * std::log(2.0f / 3.0f) / 2.0f, 1e-6f);
  EXPECT_EQ(gradient[2], 0.0f);
}

}  // namespace
}  // namespace depthstill
