// Linear layers against direct sums in double. Weights and bias are representable in bf16, so that only the rounding of
// the results differs between the paths.
#include "kernels/core/parallel.h"
#include "kernels/linear.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class LinearKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(LinearKernel, Types);

constexpr LinearShape kShapes[] = {
    {1, 1, 1},      {3, 5, 7},    {1, 40, 33},  {29, 384, 33},
    {131, 17, 65},  {20, 33, 31}, {57, 9, 300}, {15, 660, 330},  // outputs in several groups, inputs in several passes
    {1101, 24, 16},                                              // several blocks of rows
};

std::vector<float> bf16_values(int64_t n, uint32_t seed, float low, float high) {
  std::vector<float> values;
  for (const bf16 v : random_values<bf16>(static_cast<size_t>(n), seed, low, high)) {
    values.push_back(static_cast<float>(v));
  }
  return values;
}

template <class T>
struct Case {
  LinearShape shape;
  std::vector<T> x, dy;
  std::vector<float> weight, bias;
  std::vector<double> y, plain_y, dx, dweight, dbias;  // expected; plain: without bias

  explicit Case(const LinearShape& s)
      : shape(s),
        x(random_values<T>(static_cast<size_t>(s.rows * s.I), 1, -1.0f, 1.5f)),
        dy(random_values<T>(static_cast<size_t>(s.rows * s.O), 2, -1.5f, 1.0f)),
        weight(bf16_values(s.O * s.I, 3, -1.0f, 1.0f)),
        bias(bf16_values(s.O, 4, -2.0f, 2.0f)),
        plain_y(dy.size()),
        dx(x.size()),
        dweight(weight.size()),
        dbias(bias.size()) {
    const auto I = static_cast<size_t>(s.I), O = static_cast<size_t>(s.O);
    for (size_t r = 0; r < static_cast<size_t>(s.rows); ++r) {
      for (size_t o = 0; o < O; ++o) {
        const double g = to_double(dy[r * O + o]);
        for (size_t i = 0; i < I; ++i) {
          plain_y[r * O + o] += to_double(x[r * I + i]) * to_double(weight[o * I + i]);
          dx[r * I + i] += g * to_double(weight[o * I + i]);
          dweight[o * I + i] += g * to_double(x[r * I + i]);
        }
        dbias[o] += g;
      }
    }
    y = plain_y;
    for (size_t k = 0; k < y.size(); ++k) y[k] += to_double(bias[k % O]);
  }
};

TYPED_TEST(LinearKernel, MatchesDirectSums) {
  using T = TypeParam;
  for (const LinearShape& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.rows << " rows, " << s.I << " -> " << s.O);
    const Case<T> c(s);
    auto y = nan_values<T>(c.y.size()), plain_y = y, dx = nan_values<T>(c.x.size());
    auto dweight = nan_values<float>(c.weight.size()), dbias = nan_values<float>(c.bias.size());
    cpu::linear(cpu_stream(), s, c.x.data(), c.weight.data(), c.bias.data(), y.data());
    cpu::linear<T>(cpu_stream(), s, c.x.data(), c.weight.data(), nullptr, plain_y.data());
    cpu::linear_grad(cpu_stream(), s, c.x.data(), c.weight.data(), c.dy.data(), dx.data(), dweight.data(),
                     dbias.data());
    EXPECT_LE(max_relative_error(y, c.y), tolerance<T>(s.I));
    EXPECT_LE(max_relative_error(plain_y, c.plain_y), tolerance<T>(s.I));
    EXPECT_LE(max_relative_error(dx, c.dx), tolerance<T>(s.O));
    EXPECT_LE(max_relative_error(dweight, c.dweight), tolerance<float>(s.rows));
    EXPECT_LE(max_relative_error(dbias, c.dbias), tolerance<float>(s.rows));

    const DeviceArray<T> x_device(c.x), dy_device(c.dy);
    const DeviceArray<float> weight_device(c.weight), bias_device(c.bias);
    DeviceArray<T> y_device(c.y.size()), plain_device(c.y.size()), dx_device(c.x.size());
    DeviceArray<float> dweight_device(c.weight.size()), dbias_device(c.bias.size());
    cuda::linear(cuda_stream(), s, x_device.data(), weight_device.data(), bias_device.data(), y_device.data());
    cuda::linear<T>(cuda_stream(), s, x_device.data(), weight_device.data(), nullptr, plain_device.data());
    cuda::linear_grad(cuda_stream(), s, x_device.data(), weight_device.data(), dy_device.data(), dx_device.data(),
                      dweight_device.data(), dbias_device.data());
    EXPECT_LE(max_relative_error(y_device.host(), c.y), tolerance<T>(s.I));
    EXPECT_LE(max_relative_error(plain_device.host(), c.plain_y), tolerance<T>(s.I));
    EXPECT_LE(max_relative_error(dx_device.host(), c.dx), tolerance<T>(s.O));
    EXPECT_LE(max_relative_error(dweight_device.host(), c.dweight), tolerance<float>(s.rows));
    EXPECT_LE(max_relative_error(dbias_device.host(), c.dbias), tolerance<float>(s.rows));
  }
}

TYPED_TEST(LinearKernel, ComputesOnlyTheGradientsThatAreAskedFor) {
  using T = TypeParam;
  const LinearShape s{23, 20, 37};
  const Case<T> c(s);
  const auto before = c.dy;
  auto dx = nan_values<T>(c.x.size());
  auto dweight = nan_values<float>(c.weight.size()), dbias = nan_values<float>(c.bias.size());
  const auto grad = [&](const T* x, const float* weight, T* to_dx, float* to_dweight, float* to_dbias) {
    cpu::linear_grad<T>(cpu_stream(), s, x, weight, c.dy.data(), to_dx, to_dweight, to_dbias);
  };
  grad(nullptr, c.weight.data(), dx.data(), nullptr, nullptr);
  grad(c.x.data(), nullptr, nullptr, dweight.data(), nullptr);
  grad(nullptr, nullptr, nullptr, nullptr, dbias.data());
  grad(nullptr, nullptr, nullptr, nullptr, nullptr);
  EXPECT_LE(max_relative_error(dx, c.dx), tolerance<T>(s.O));
  EXPECT_LE(max_relative_error(dweight, c.dweight), tolerance<float>(s.rows));
  EXPECT_LE(max_relative_error(dbias, c.dbias), tolerance<float>(s.rows));
  EXPECT_EQ(max_relative_error(c.dy, before), 0.0);
}

TYPED_TEST(LinearKernel, KeepsNaNInItsRow) {
  using T = TypeParam;
  const LinearShape s{31, 40, 35};
  Case<T> c(s);
  c.x[45] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());  // row 1
  auto y = nan_values<T>(c.y.size());
  cpu::linear(cpu_stream(), s, c.x.data(), c.weight.data(), c.bias.data(), y.data());
  for (size_t k = 0; k < y.size(); ++k) EXPECT_EQ(std::isnan(to_double(y[k])), k / 35 == 1) << k;
}

}  // namespace
}  // namespace depthstill
