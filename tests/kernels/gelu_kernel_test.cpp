#include "kernels/gelu.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class GeluKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(GeluKernel, Types);

constexpr double kPi = 3.14159265358979323846;

double phi(GeluKind kind, double x) {
  if (kind == GeluKind::kErf) return 0.5 * std::erfc(-x / std::sqrt(2.0));
  return 0.5 * (1 + std::tanh(std::sqrt(2 / kPi) * (x + 0.044715 * x * x * x)));
}

double slope(GeluKind kind, double x) {
  if (kind == GeluKind::kErf) return phi(kind, x) + x * std::exp(-x * x / 2) / std::sqrt(2 * kPi);
  const double t = 2 * phi(kind, x) - 1;
  return phi(kind, x) + 0.5 * x * (1 - t * t) * std::sqrt(2 / kPi) * (1 + 3 * 0.044715 * x * x);
}

// Every element's absolute error counts in units of the argument, since phi is exact to a few eps of 1.
template <class T>
void expect_close(const std::vector<T>& actual, const std::vector<double>& expected, const std::vector<double>& unit) {
  ASSERT_EQ(actual.size(), expected.size());
  const double rounding = std::is_same_v<T, bf16> ? 0x1p-8 : 0x1p-24;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(to_double(actual[i]), expected[i], rounding * std::abs(expected[i]) + 6 * 0x1p-24 * unit[i]) << i;
  }
}

TYPED_TEST(GeluKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const GeluKind kind : {GeluKind::kErf, GeluKind::kTanh}) {
    for (const size_t n : {size_t{1}, size_t{37}, size_t{1031}, size_t{20011}}) {  // the last: several rounds of a grid
      SCOPED_TRACE(::testing::Message() << "kind " << static_cast<int>(kind) << ", n " << n);
      auto x = random_values<T>(n, 1, -6.0f, 6.0f);
      const auto dy = random_values<T>(n, 2, -2.0f, 1.5f);
      x[0] = static_cast<T>(-13.5f);
      std::vector<double> y, dx, y_unit, dx_unit;
      for (size_t i = 0; i < n; ++i) {
        const double v = to_double(x[i]), g = to_double(dy[i]);
        y.push_back(v * phi(kind, v));
        dx.push_back(g * slope(kind, v));
        y_unit.push_back(std::abs(v));
        dx_unit.push_back(std::abs(g) * (1 + std::abs(v)));
      }
      auto actual_y = nan_values<T>(n), actual_dx = nan_values<T>(n);
      cpu::gelu(cpu_stream(), static_cast<int64_t>(n), kind, x.data(), actual_y.data());
      cpu::gelu_grad(cpu_stream(), static_cast<int64_t>(n), kind, x.data(), dy.data(), actual_dx.data());
      expect_close(actual_y, y, y_unit);
      expect_close(actual_dx, dx, dx_unit);
      auto in_place = dy;
      cpu::gelu_grad(cpu_stream(), static_cast<int64_t>(n), kind, x.data(), in_place.data(), in_place.data());
      EXPECT_EQ(max_relative_error(in_place, actual_dx), 0.0);

      for_each_schedule([&] {
        const DeviceArray<T> x_device(x), dy_device(dy);
        DeviceArray<T> y_device(n), dx_device(n);
        cuda::gelu(cuda_stream(), static_cast<int64_t>(n), kind, x_device.data(), y_device.data());
        cuda::gelu_grad(cuda_stream(), static_cast<int64_t>(n), kind, x_device.data(), dy_device.data(),
                        dx_device.data());
        expect_close(y_device.host(), y, y_unit);
        expect_close(dx_device.host(), dx, dx_unit);
      });
    }
  }
}

TYPED_TEST(GeluKernel, UnalignedArraysAndNaN) {
  using T = TypeParam;
  auto x = random_values<T>(42, 3, -3.0f, 3.0f);
  x[5] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
  auto y = nan_values<T>(41);
  cpu::gelu(cpu_stream(), 41, GeluKind::kErf, x.data() + 1, y.data());
  for (size_t i = 0; i < 41; ++i) EXPECT_EQ(std::isnan(to_double(y[i])), i == 4) << i;
  for_each_schedule([&] {
    const DeviceArray<T> x_device(x);
    DeviceArray<T> y_device(41);
    cuda::gelu(cuda_stream(), 41, GeluKind::kErf, x_device.data() + 1, y_device.data());
    EXPECT_LE(max_relative_error(y_device.host(), y), tolerance<T>());
  });
}

}  // namespace
}  // namespace depthstill
