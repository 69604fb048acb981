#include "kernels/feature_cosine.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class FeatureCosineKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(FeatureCosineKernel, Types);

constexpr float kAlpha = 0.6f, kSlope = 0.7f;

// The formulas of the header in double. Of every third token g is near f, of the second f is 0, of the fifth both are
// so small that the product of their norms is at its bound.
template <class T>
struct Case {
  size_t tokens, channels;
  std::vector<T> f, g;
  double loss = 0;
  std::vector<double> df;
  int counted = 0;

  Case(size_t t, size_t c) : tokens(t), channels(c), df(t * c) {
    f = random_values<T>(t * c, 1, -1.0f, 1.5f);
    g = random_values<T>(t * c, 2, -1.5f, 1.0f);
    for (size_t i = 0; i < t * c; ++i) {
      const size_t token = i / c;
      if (token % 3 == 0) g[i] = T(static_cast<float>(f[i]) + 0.2f * static_cast<float>(g[i]));
      if (token == 1) f[i] = T(0.0f);
      if (token == 4) f[i] = T(static_cast<float>(f[i]) * 1e-6f), g[i] = T(static_cast<float>(g[i]) * 1e-6f);
    }
    for (size_t token = 0; token < t; ++token) add(token);
  }

  void add(size_t token) {
    const T *a = &f[token * channels], *b = &g[token * channels];
    double fg = 0, ff = 0, gg = 0;
    for (size_t i = 0; i < channels; ++i) {
      fg += to_double(a[i]) * to_double(b[i]);
      ff += to_double(a[i]) * to_double(a[i]);
      gg += to_double(b[i]) * to_double(b[i]);
    }
    const double norms = std::sqrt(ff) * std::sqrt(gg), bounded = std::max(norms, 1e-8);
    const double distance = 1 - fg / bounded;
    EXPECT_GT(std::fabs(distance - static_cast<double>(kAlpha)), 1e-5) << "too near to the margin to be compared";
    if (distance < static_cast<double>(kAlpha)) return;
    ++counted;
    const double part = 1 / static_cast<double>(tokens);
    loss += part * distance;
    for (size_t i = 0; i < channels; ++i) {
      if (norms <= 1e-8) continue;
      const double along = fg / norms / ff * to_double(a[i]);
      df[token * channels + i] = -static_cast<double>(kSlope) * part * (to_double(b[i]) / bounded - along);
    }
  }
};

TYPED_TEST(FeatureCosineKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const auto& size : {std::pair<size_t, size_t>{1, 3}, {5, 7}, {19, 48}, {9, 1031}, {33, 384}}) {
    const size_t tokens = size.first, channels = size.second;
    SCOPED_TRACE(::testing::Message() << tokens << " x " << channels);
    const Case<T> c(tokens, channels);
    EXPECT_TRUE(tokens < 5 || (c.counted > 0 && c.counted < static_cast<int>(tokens)));
    const auto n = static_cast<int64_t>(tokens), C = static_cast<int64_t>(channels);
    auto loss = nan_values<float>(1);
    auto df = nan_values<T>(tokens * channels);
    std::vector<TokenSlope> slopes(tokens);
    cpu::feature_cosine(cpu_stream(), n, C, kAlpha, c.f.data(), c.g.data(), slopes.data(), loss.data());
    cpu::feature_cosine_grad(cpu_stream(), n, C, c.f.data(), c.g.data(), slopes.data(), &kSlope, df.data());
    const auto expect_result = [&](float found, const std::vector<T>& gradient) {
      EXPECT_NEAR(static_cast<double>(found), c.loss, 1e-5 * (1 + c.loss));
      EXPECT_LE(max_relative_error(gradient, c.df), tolerance<T>(static_cast<int64_t>(channels)));
    };
    expect_result(loss[0], df);
    for_each_schedule([&] {
      const DeviceArray<T> f(c.f), g(c.g);
      const DeviceArray<float> dloss(std::vector<float>{kSlope});
      DeviceArray<float> loss_device(1), slopes_device(2 * tokens);
      DeviceArray<T> df_device(tokens * channels);
      auto* kept = reinterpret_cast<TokenSlope*>(slopes_device.data());
      cuda::feature_cosine(cuda_stream(), n, C, kAlpha, f.data(), g.data(), kept, loss_device.data());
      cuda::feature_cosine_grad(cuda_stream(), n, C, f.data(), g.data(), kept, dloss.data(), df_device.data());
      expect_result(loss_device.host()[0], df_device.host());
    });
  }
}

}  // namespace
}  // namespace depthstill
