#include "engine/optim.h"

#include <gtest/gtest.h>

#include <limits>

#include "engine/allocator.h"
#include "engine/ops.h"
#include "kernels/core/rounded_copies.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using test::values_of;

Tensor leaf(const Shape& shape, const std::vector<float>& values, Device device) {
  Tensor t = tensor<float>(shape, values, device);
  return t.set_requires_grad();
}

// Leaves `gradient` in parameter.grad().
void give(const Tensor& parameter, const std::vector<float>& gradient) {
  backward(scale(parameter, 1.0f), tensor<float>(parameter.shape(), gradient, parameter.device()));
}

std::vector<Device> devices() {
  std::vector<Device> list = {Device::kCpu};
  if (test::second_device()) list.push_back(Device::kCuda);
  return list;
}

// Five updates of PyTorch 2.15's AdamW (betas 0.95, 0.99, weight decay 0.01) after clip_grad_norm_(35), with lr
// 1e-3 (t + 1), gradients (1, -20, 3, 0.001) (t + 1) and (4, -0.5) (t - 2); the last two are clipped.
TEST(AdamW, MatchesPyTorch) {
  constexpr float kNorm[] = {21.7944946f, 40.6970520f, 60.7453690f, 81.0940781f, 101.562790f};
  const std::vector<float> a_expected = {0.485133857f, -1.23502135f, 1.98490882f, 0.0152044222f};
  const std::vector<float> b_expected = {-0.741472602f, 1.49135995f};
  const std::vector<float> m_expected = {0.360617578f, -7.2123518f, 1.08185279f, 0.000360617589f};
  const std::vector<float> v_expected = {0.126791596f, 50.7166328f, 1.14112425f, 1.26791591e-07f};
  for (const Device device : devices()) {
    SCOPED_TRACE(name_of(device));
    const Tensor a = leaf({4}, {0.5f, -1.25f, 2.0f, 0.03f}, device), b = leaf({2, 1}, {-0.75f, 1.5f}, device);
    AdamW optimizer({a, b}, {});
    for (int t = 0; t < 5; ++t) {
      const auto k = static_cast<float>(t);
      optimizer.set_lr(1e-3 * (t + 1));
      give(a, {k + 1, -20 * (k + 1), 3 * (k + 1), 0.001f * (k + 1)});
      give(b, {4 * (k - 2), -0.5f * (k - 2)});
      optimizer.step();
      optimizer.clear_grads();
      EXPECT_NEAR(optimizer.last_step().grad_norm, kNorm[t], 1e-5f * kNorm[t]);
    }
    EXPECT_LE(test::relative_error(values_of(a), a_expected), 1e-6);
    EXPECT_LE(test::relative_error(values_of(b), b_expected), 1e-6);
    const auto m = values_of(optimizer.first_moments()[0]), v = values_of(optimizer.second_moments()[0]);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(m[i], m_expected[i], 1e-5f * std::abs(m_expected[i])) << i;
      EXPECT_NEAR(v[i], v_expected[i], 1e-5f * std::abs(v_expected[i])) << i;
    }
    EXPECT_EQ(optimizer.updates(), 5);
  }
}

TEST(AdamW, AveragesAccumulatedGradients) {
  const std::vector<float> start = {0.5f, -1.0f, 2.0f};
  const Tensor once = leaf({3}, start, Device::kCpu), twice = leaf({3}, start, Device::kCpu);
  AdamW a({once}, {}), b({twice}, {});
  give(once, {1.0f, -2.0f, 0.5f});
  a.step();
  give(twice, {1.5f, -3.0f, 1.0f});
  give(twice, {0.5f, -1.0f, 0.0f});
  b.step(0.5f);
  EXPECT_EQ(values_of(once), values_of(twice));
  EXPECT_EQ(a.last_step().grad_norm, b.last_step().grad_norm);
}

TEST(AdamW, ResumesBitForBit) {
  const Tensor p = leaf({3}, {0.5f, -1.0f, 2.0f}, Device::kCpu);
  AdamW first({p}, {});
  const auto update = [](AdamW& optimizer, const Tensor& parameter, int t) {
    const auto k = static_cast<float>(t);
    give(parameter, {1.0f + k, -2.0f, 0.5f * k});
    optimizer.step();
    optimizer.clear_grads();
  };
  for (int t = 0; t < 3; ++t) update(first, p, t);

  Tensor q = clone(p);
  q.set_requires_grad();
  AdamW second({q}, {});
  copy_(second.first_moments()[0], first.first_moments()[0]);
  copy_(second.second_moments()[0], first.second_moments()[0]);
  second.set_updates(first.updates());
  for (int t = 3; t < 5; ++t) {
    update(first, p, t);
    update(second, q, t);
  }
  EXPECT_EQ(values_of(p), values_of(q));
}

TEST(AdamW, SkipsParametersWithoutGradientAndNonFiniteSteps) {
  for (const Device device : devices()) {
    SCOPED_TRACE(name_of(device));
    const Tensor used = leaf({2}, {1.0f, 2.0f}, device), unused = leaf({2}, {3.0f, 4.0f}, device);
    AdamW optimizer({used, unused}, {});
    give(used, {1.0f, std::numeric_limits<float>::quiet_NaN()});
    optimizer.step();
    EXPECT_FALSE(optimizer.last_step().finite);
    EXPECT_EQ(optimizer.updates(), 0);
    EXPECT_EQ(values_of(used), (std::vector<float>{1.0f, 2.0f}));
    optimizer.clear_grads();
    give(used, {1.0f, -1.0f});
    optimizer.step();
    EXPECT_TRUE(optimizer.last_step().finite);
    EXPECT_EQ(optimizer.updates(), 1);
    EXPECT_LT(values_of(used)[0], 1.0f);
    EXPECT_EQ(values_of(unused), (std::vector<float>{3.0f, 4.0f}));
  }
}

// A gradient whose square overflows leaves a moment that is infinite, and every later step says so.
TEST(AdamW, ReportsAnUpdateThatIsNotFinite) {
  for (const Device device : devices()) {
    SCOPED_TRACE(name_of(device));
    const Tensor p = leaf({2}, {1.0f, 2.0f}, device);
    AdamW optimizer({p}, {.clip_norm = 0.0f});
    give(p, {1.0f, -1.0f});
    optimizer.step();
    EXPECT_FALSE(optimizer.last_step().broken);
    optimizer.clear_grads();
    give(p, {1.0f, 1e30f});
    optimizer.step();
    EXPECT_TRUE(optimizer.last_step().finite);
    EXPECT_TRUE(optimizer.last_step().broken);
    optimizer.clear_grads();
    give(p, {1.0f, 1.0f});
    optimizer.step();
    EXPECT_TRUE(optimizer.last_step().broken);
  }
}

TEST(AdamW, SaysWhatItNeeds) {
  EXPECT_THROW(AdamW({}, {}), Error);
  EXPECT_THROW(AdamW({zeros({3})}, {}), Error);
}

// Ops give the same bits with copies as without, and copies follow whatever changes the parameters.
TEST(AdamW, KeepsBf16CopiesOnCuda) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  const Tensor p = leaf({3, 8}, std::vector<float>(24, 0.123456f), Device::kCuda);
  const Tensor x = tensor<bf16>({2, 8}, std::vector<bf16>(16, bf16(1.5f)), Device::kCuda);
  const auto result = [&] { return values_of(linear(x, p, Tensor())); };
  const auto expect_copy = [&] {
    const bf16* copy = cuda::rounded_copy(p, p.numel());
    ASSERT_NE(copy, nullptr);
    std::vector<bf16> found(24);
    copy_bytes(found.data(), Device::kCpu, copy, Device::kCuda, found.size() * sizeof(bf16));
    synchronize(Device::kCuda);
    const std::vector<float> values = values_of(p);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].bits, bf16(values[i]).bits) << i;
  };
  const std::vector<float> without = result();
  {
    AdamW optimizer({p}, {.lr = 0.1});
    EXPECT_EQ(cuda::rounded_copy(p, p.numel()), nullptr);
    optimizer.keep_bf16_copies();
    optimizer.keep_bf16_copies();
    expect_copy();
    EXPECT_EQ(result(), without);
    give(p, std::vector<float>(24, 1.0f));
    optimizer.step();
    EXPECT_LT(values_of(p)[0], 0.1f);
    expect_copy();
    EXPECT_NE(result(), without);
    copy_(p, tensor<float>({3, 8}, std::vector<float>(24, 0.123456f)));
    expect_copy();
    EXPECT_EQ(result(), without);
    EXPECT_EQ(cuda::rounded_copy(p.data<float>() + 8, 17), nullptr);
    EXPECT_EQ(cuda::rounded_copy(p.data<float>() + 8, 16), cuda::rounded_copy(p, 24) + 8);
  }
  EXPECT_EQ(cuda::rounded_copy(p, p.numel()), nullptr);
}

}  // namespace
}  // namespace depthstill
