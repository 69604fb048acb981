// CPU kernels give the same bits with any number of threads. For conv2d, attention, layer_norm and dpm_head see the
// tests of these.
#include "kernels/activation.h"
#include "kernels/adamw.h"
#include "kernels/batch_norm.h"
#include "kernels/core/parallel.h"
#include "kernels/depth_loss.h"
#include "kernels/depthwise/depthwise_conv2d.h"
#include "kernels/embed_tokens.h"
#include "kernels/feature_cosine.h"
#include "kernels/gelu.h"
#include "kernels/head_conv.h"
#include "kernels/layer_scale.h"
#include "kernels/ssim.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class ThreadCount : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(ThreadCount, Types);

// `run` returns its results as one vector.
template <class Run>
void expect_same_bits(const Run& run) {
  const int threads = num_threads();
  set_num_threads(1);
  const std::vector<float> one = run();
  for (const int count : {2, 3, 8}) {
    set_num_threads(count);
    const std::vector<float> found = run();
    ASSERT_EQ(found.size(), one.size());
    EXPECT_EQ(std::memcmp(found.data(), one.data(), one.size() * sizeof(float)), 0) << count << " threads";
  }
  set_num_threads(threads);
}

template <class... Vectors>
std::vector<float> joined(const Vectors&... vectors) {
  std::vector<float> all;
  const auto append = [&](const auto& values) {
    for (const auto value : values) all.push_back(static_cast<float>(value));
  };
  (append(vectors), ...);
  return all;
}

struct Rows {
  int64_t rows;
  int channels;
};
// Cases of less than a block, some blocks, as many as there may be; of folded and of whole rows.
constexpr Rows kRows[] = {{3, 5}, {1023, 1}, {3000, 7}, {5003, 40}, {40000, 64}, {300, 520}, {77, 1280}};

TYPED_TEST(ThreadCount, BiasGradient) {
  using T = TypeParam;
  for (const Rows& shape : kRows) {
    const int64_t rows = shape.rows;
    const int channels = shape.channels;
    SCOPED_TRACE(::testing::Message() << rows << " x " << channels);
    const auto size = static_cast<size_t>(rows * channels);
    const auto y = random_values<T>(size, 1), dy = random_values<T>(size, 2, -0.5f, 1.0f);
    for (const Activation kind : {Activation::kNone, Activation::kRelu}) {
      expect_same_bits([&] {
        auto dx = nan_values<T>(size);
        auto dbias = nan_values<float>(static_cast<size_t>(channels));
        cpu::bias_activation_grad(cpu_stream(), rows, channels, kind, y.data(), dy.data(), dx.data(), dbias.data());
        return joined(dx, dbias);
      });
    }
  }
}

TYPED_TEST(ThreadCount, BatchNorm) {
  using T = TypeParam;
  for (const Rows& shape : kRows) {
    const int64_t rows = shape.rows;
    const int channels = shape.channels;
    SCOPED_TRACE(::testing::Message() << rows << " x " << channels);
    const auto size = static_cast<size_t>(rows * channels), C = static_cast<size_t>(channels);
    const auto x = random_values<T>(size, 1, -1.0f, 3.0f), dy = random_values<T>(size, 2, -0.5f, 1.0f);
    const auto weight = random_values<float>(C, 3, 0.5f, 2.0f), bias = random_values<float>(C, 4);
    expect_same_bits([&] {
      std::vector<float> running_mean(C, 0.5f), running_var(C, 2.0f);
      auto mean = nan_values<float>(C), rstd = mean, moments = nan_values<float>(2 * C), dweight = mean, dbias = mean;
      auto dx = nan_values<T>(size);
      cpu::batch_norm_batch_stats(cpu_stream(), rows, channels, 1e-3f, 0.1f, x.data(), running_mean.data(),
                                  running_var.data(), mean.data(), rstd.data());
      cpu::batch_norm_moments(cpu_stream(), rows, channels, x.data(), moments.data());
      cpu::batch_norm_grad<T>(cpu_stream(), rows, channels,
                              {Activation::kRelu6, mean.data(), rstd.data(), weight.data(), bias.data()},
                              Statistics::kBatch, x.data(), dy.data(), {dx.data(), dweight.data(), dbias.data()});
      return joined(mean, rstd, running_mean, running_var, moments, dx, dweight, dbias);
    });
  }
}

TYPED_TEST(ThreadCount, LayerScale) {
  using T = TypeParam;
  for (const Rows& shape : kRows) {
    const int64_t rows = shape.rows;
    const int channels = shape.channels;
    SCOPED_TRACE(::testing::Message() << rows << " x " << channels);
    const auto size = static_cast<size_t>(rows * channels), C = static_cast<size_t>(channels);
    const auto branch = random_values<T>(size, 1), dy = random_values<T>(size, 2, -0.5f, 1.0f);
    const auto gamma = random_values<float>(C, 3);
    expect_same_bits([&] {
      auto dbranch = nan_values<T>(size);
      auto dgamma = nan_values<float>(C);
      cpu::layer_scale_grad(cpu_stream(), rows, channels, branch.data(), gamma.data(), dy.data(), dbranch.data(),
                            dgamma.data());
      return joined(dbranch, dgamma);
    });
  }
}

TYPED_TEST(ThreadCount, HeadConv) {
  using T = TypeParam;
  for (const Rows& shape : kRows) {
    const int64_t rows = shape.rows;
    const int channels = shape.channels;
    SCOPED_TRACE(::testing::Message() << rows << " x " << channels);
    const auto n = static_cast<size_t>(rows), size = static_cast<size_t>(rows * channels);
    const auto C = static_cast<size_t>(channels);
    const auto x = random_values<T>(size, 1);
    const auto weight = random_values<float>(C, 2), bias = random_values<float>(1, 3);
    const auto dy = random_values<float>(n, 4, -0.5f, 1.0f);
    expect_same_bits([&] {
      auto y = nan_values<float>(n), dweight = nan_values<float>(C), sums = dweight, dbias = nan_values<float>(1);
      auto dx = nan_values<T>(size);
      cpu::head_conv(cpu_stream(), rows, channels, Activation::kRelu, x.data(), weight.data(), bias.data(), y.data());
      cpu::head_conv_grad<T>(cpu_stream(), rows, channels, Activation::kRelu, x.data(), weight.data(), y.data(),
                             dy.data(), {dx.data(), dweight.data(), dbias.data(), Activation::kRelu, sums.data()});
      return joined(y, dx, dweight, dbias, sums);
    });
  }
}

TYPED_TEST(ThreadCount, FeatureCosine) {
  using T = TypeParam;
  for (const Rows& shape : kRows) {
    const int64_t rows = shape.rows, channels = shape.channels;
    SCOPED_TRACE(::testing::Message() << rows << " x " << channels);
    const auto f = random_values<T>(static_cast<size_t>(rows * channels), 1);
    const auto g = random_values<T>(static_cast<size_t>(rows * channels), 2);
    const float dloss = 0.7f;
    expect_same_bits([&] {
      auto loss = nan_values<float>(1);
      auto df = nan_values<T>(f.size());
      std::vector<TokenSlope> slopes(static_cast<size_t>(rows));
      cpu::feature_cosine(cpu_stream(), rows, channels, 0.15f, f.data(), g.data(), slopes.data(), loss.data());
      cpu::feature_cosine_grad(cpu_stream(), rows, channels, f.data(), g.data(), slopes.data(), &dloss, df.data());
      return joined(loss, df);
    });
  }
}

TYPED_TEST(ThreadCount, DepthwiseConv2d) {
  using T = TypeParam;
  for (const DepthwiseShape& s : {DepthwiseShape{1, 11, 22, 72, 1, 1, 1, 1, 3},
                                  {2, 40, 37, 40, 2, 1, 1, 1, 3},
                                  {3, 25, 19, 17, 1, 2, 4, 4, 5},
                                  {1, 180, 90, 16, 1, 1, 1, 1, 3}}) {
    SCOPED_TRACE(::testing::Message() << s.H << " x " << s.W << " x " << s.C);
    const auto C = static_cast<size_t>(s.C), weights = static_cast<size_t>(s.kernel * s.kernel) * C;
    const auto x = random_values<T>(static_cast<size_t>(s.N * s.H * s.W) * C, 1);
    const auto dy = random_values<T>(static_cast<size_t>(s.N * s.P() * s.Q()) * C, 2);
    const auto weight = random_values<float>(weights, 3), ones = std::vector<float>(C, 1.0f);
    const BatchNormInput norm{Activation::kRelu6, weight.data(), ones.data(), ones.data(), ones.data()};
    expect_same_bits([&] {
      auto y = nan_values<T>(dy.size()), dx = nan_values<T>(x.size());
      auto dweight = nan_values<float>(weights), moments = nan_values<float>(2 * C), sums = moments;
      cpu::depthwise_conv2d(cpu_stream(), s, norm, x.data(), weight.data(), y.data(), moments.data());
      cpu::depthwise_conv2d_grad(cpu_stream(), s, norm, x.data(), dy.data(), weight.data(), dx.data(), dweight.data(),
                                 sums.data());
      return joined(y, moments, dx, dweight, sums);
    });
  }
}

TYPED_TEST(ThreadCount, EmbedTokens) {
  using T = TypeParam;
  const TokenShape s{.N = 3, .tokens = 200, .C = 70};
  const auto C = static_cast<size_t>(s.C);
  const auto dy = random_values<T>(3 * 201 * C, 1);
  expect_same_bits([&] {
    auto dpatches = nan_values<T>(3 * 200 * C);
    auto dcls = nan_values<float>(C), dpos = nan_values<float>(201 * C);
    cpu::embed_tokens_grad(cpu_stream(), s, dy.data(), dpatches.data(), dcls.data(), dpos.data());
    return joined(dpatches, dcls, dpos);
  });
}

// The place where a thread begins may decide what is computed in vectors and what one by one.
TYPED_TEST(ThreadCount, ElementwiseKernels) {
  using T = TypeParam;
  constexpr size_t kSize = 100'003;
  const auto x = random_values<T>(kSize, 1, -4.0f, 4.0f), dy = random_values<T>(kSize, 2);
  expect_same_bits([&] {
    auto y = nan_values<T>(kSize), dx = y, z = y, dz = y;
    cpu::gelu(cpu_stream(), kSize, GeluKind::kErf, x.data(), y.data());
    cpu::gelu_grad(cpu_stream(), kSize, GeluKind::kErf, x.data(), dy.data(), dx.data());
    cpu::activation(cpu_stream(), kSize, Activation::kSigmoid, x.data(), z.data());
    cpu::activation_grad(cpu_stream(), kSize, Activation::kSigmoid, z.data(), dy.data(), x.data(), dz.data());
    return joined(y, dx, z, dz);
  });
}

TEST(ThreadCountOfLosses, DepthLossAndSsim) {
  const DepthMapShape shape{2, 70, 53, 3};
  const auto pred = random_values<float>(2 * 70 * 53, 1, 1.0f, 80.0f);
  const auto target = random_values<float>(2 * 70 * 53, 2, -9.0f, 80.0f);
  for (const DepthLossKind kind : {DepthLossKind::kSi, DepthLossKind::kMse, DepthLossKind::kL1}) {
    expect_same_bits([&] {
      auto result = nan_values<float>(4);
      cpu::depth_loss(cpu_stream(), kind, shape, true, pred.data(), target.data(), result.data());
      return result;
    });
  }
  expect_same_bits([&] {
    auto gradient = nan_values<float>(pred.size()), result = nan_values<float>(2);
    cpu::ssim(cpu_stream(), shape, SsimMode::kReference, true, pred.data(), target.data(), gradient.data(),
              result.data());
    return joined(gradient, result);
  });
}

TEST(ThreadCountOfLosses, AdamWAndTheNormOfTheGradient) {
  constexpr size_t kSize = 300'001;
  const auto grad = random_values<float>(kSize, 1), start = random_values<float>(kSize, 2);
  expect_same_bits([&] {
    std::vector<float> value = start, m(kSize, 0.1f), v(kSize, 0.2f);
    const AdamWSlot slots[] = {{.n = kSize, .grad = grad.data(), .value = value.data(), .m = m.data(), .v = v.data()}};
    const AdamWParams params;
    AdamWState state;
    double sum = 0;
    cpu::adamw_set_lr(cpu_stream(), 1e-3f, &state);
    cpu::sum_of_squares(cpu_stream(), slots, &sum);
    cpu::adamw_prepare(cpu_stream(), params, 1.0f, 1.0f, &sum, &state);
    int32_t broken = 0;
    cpu::adamw(cpu_stream(), slots, params, &state, &broken);
    std::vector<float> bits(2);
    std::memcpy(bits.data(), &sum, sizeof(sum));
    return joined(bits, value, m, v);
  });
}

}  // namespace
}  // namespace depthstill
