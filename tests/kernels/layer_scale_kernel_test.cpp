#include "kernels/layer_scale.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class LayerScaleKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(LayerScaleKernel, Types);

struct Size {
  int64_t rows, channels;
};
constexpr Size kSizes[] = {{1, 1}, {3, 7}, {19, 33}, {300, 40}, {70, 384}, {2, 1031}};

template <class T>
struct Case {
  size_t n, C;
  std::vector<T> x, branch, dy;
  std::vector<float> gamma;
  std::vector<double> y, dbranch, dgamma;  // expected

  explicit Case(const Size& s)
      : n(static_cast<size_t>(s.rows * s.channels)),
        C(static_cast<size_t>(s.channels)),
        x(random_values<T>(n, 1)),
        branch(random_values<T>(n, 2, -2.0f, 1.5f)),
        dy(random_values<T>(n, 3, -1.5f, 1.0f)),
        gamma(random_values<float>(C, 4, 0.2f, 1.7f)),
        dgamma(C) {
    for (size_t i = 0; i < n; ++i) {
      y.push_back(to_double(x[i]) + to_double(gamma[i % C]) * to_double(branch[i]));
      dbranch.push_back(to_double(gamma[i % C]) * to_double(dy[i]));
      dgamma[i % C] += to_double(dy[i]) * to_double(branch[i]);
    }
  }
};

TYPED_TEST(LayerScaleKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const Size& s : kSizes) {
    SCOPED_TRACE(::testing::Message() << s.rows << "x" << s.channels);
    const Case<T> c(s);
    auto y = nan_values<T>(c.n), dbranch = y, alone = y;
    auto dgamma = nan_values<float>(c.C), only = dgamma;
    cpu::layer_scale(cpu_stream(), s.rows, s.channels, c.x.data(), c.branch.data(), c.gamma.data(), y.data());
    cpu::layer_scale_grad(cpu_stream(), s.rows, s.channels, c.branch.data(), c.gamma.data(), c.dy.data(),
                          dbranch.data(), dgamma.data());
    cpu::layer_scale_grad<T>(cpu_stream(), s.rows, s.channels, nullptr, c.gamma.data(), c.dy.data(), alone.data(),
                             nullptr);
    cpu::layer_scale_grad<T>(cpu_stream(), s.rows, s.channels, c.branch.data(), nullptr, c.dy.data(), nullptr,
                             only.data());
    EXPECT_LE(max_relative_error(y, c.y), tolerance<T>());
    EXPECT_LE(max_relative_error(dbranch, c.dbranch), tolerance<T>());
    EXPECT_LE(max_relative_error(dgamma, c.dgamma), tolerance<float>(s.rows));
    EXPECT_EQ(max_relative_error(alone, dbranch), 0.0);
    EXPECT_EQ(only, dgamma);

    for_each_schedule([&] {
      const DeviceArray<T> x(c.x), branch(c.branch), dy(c.dy);
      const DeviceArray<float> gamma(c.gamma);
      DeviceArray<T> y_device(c.n), dbranch_device(c.n), alone_device(c.n);
      DeviceArray<float> dgamma_device(c.C), only_device(c.C);
      cuda::layer_scale(cuda_stream(), s.rows, s.channels, x.data(), branch.data(), gamma.data(), y_device.data());
      cuda::layer_scale_grad(cuda_stream(), s.rows, s.channels, branch.data(), gamma.data(), dy.data(),
                             dbranch_device.data(), dgamma_device.data());
      cuda::layer_scale_grad<T>(cuda_stream(), s.rows, s.channels, nullptr, gamma.data(), dy.data(),
                                alone_device.data(), nullptr);
      cuda::layer_scale_grad<T>(cuda_stream(), s.rows, s.channels, branch.data(), nullptr, dy.data(), nullptr,
                                only_device.data());
      EXPECT_LE(max_relative_error(y_device.host(), c.y), tolerance<T>());
      EXPECT_LE(max_relative_error(dbranch_device.host(), c.dbranch), tolerance<T>());
      EXPECT_LE(max_relative_error(dgamma_device.host(), c.dgamma), tolerance<float>(s.rows));
      EXPECT_EQ(max_relative_error(alone_device.host(), dbranch_device.host()), 0.0);
      EXPECT_EQ(only_device.host(), dgamma_device.host());
    });
  }
}

TYPED_TEST(LayerScaleKernel, WorksInPlace) {
  using T = TypeParam;
  const Size s{21, 40};
  const Case<T> c(s);
  auto y = c.x, over_branch = c.branch, dbranch = c.dy;
  auto dgamma = nan_values<float>(c.C);
  cpu::layer_scale(cpu_stream(), s.rows, s.channels, y.data(), c.branch.data(), c.gamma.data(), y.data());
  cpu::layer_scale_grad(cpu_stream(), s.rows, s.channels, c.branch.data(), c.gamma.data(), dbranch.data(),
                        dbranch.data(), dgamma.data());
  cpu::layer_scale_grad(cpu_stream(), s.rows, s.channels, over_branch.data(), c.gamma.data(), c.dy.data(),
                        over_branch.data(), dgamma.data());
  EXPECT_LE(max_relative_error(y, c.y), tolerance<T>());
  EXPECT_LE(max_relative_error(dbranch, c.dbranch), tolerance<T>());
  EXPECT_LE(max_relative_error(over_branch, c.dbranch), tolerance<T>());
  EXPECT_LE(max_relative_error(dgamma, c.dgamma), tolerance<float>(s.rows));
  for_each_schedule([&] {
    const DeviceArray<float> gamma(c.gamma);
    DeviceArray<T> y_device(c.x), branch(c.branch), dy(c.dy);
    DeviceArray<float> dgamma_device(c.C);
    cuda::layer_scale(cuda_stream(), s.rows, s.channels, y_device.data(), branch.data(), gamma.data(), y_device.data());
    cuda::layer_scale_grad(cuda_stream(), s.rows, s.channels, branch.data(), gamma.data(), dy.data(), dy.data(),
                           dgamma_device.data());
    EXPECT_LE(max_relative_error(y_device.host(), c.y), tolerance<T>());
    EXPECT_LE(max_relative_error(dy.host(), c.dbranch), tolerance<T>());
    EXPECT_LE(max_relative_error(dgamma_device.host(), c.dgamma), tolerance<float>(s.rows));
  });
}

}  // namespace
}  // namespace depthstill
