#include "kernels/activation.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class ActivationKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(ActivationKernel, Types);

constexpr Activation kKinds[] = {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid};

double value(Activation kind, double x) {
  if (kind == Activation::kRelu) return std::max(x, 0.0);
  if (kind == Activation::kRelu6) return std::min(std::max(x, 0.0), 6.0);
  if (kind == Activation::kSigmoid) return 1.0 / (1.0 + std::exp(-x));
  return x;
}

// The slope follows from y, as the contract says.
double slope(Activation kind, double y) {
  if (kind == Activation::kRelu) return y > 0.0 ? 1.0 : 0.0;
  if (kind == Activation::kRelu6) return y > 0.0 && y < 6.0 ? 1.0 : 0.0;
  if (kind == Activation::kSigmoid) return y * (1.0 - y);
  return 1.0;
}

TYPED_TEST(ActivationKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const size_t size : {1u, 7u, 8u, 16u, 33u, 1000u, 4099u}) {
    for (const Activation kind : kKinds) {
      SCOPED_TRACE(::testing::Message() << size << " elements, activation " << static_cast<int>(kind));
      const auto n = static_cast<int64_t>(size);
      const auto x = random_values<T>(size, 1, -4.0f, 9.0f), dy = random_values<T>(size, 2);
      std::vector<double> y(size), dx(size);
      for (size_t i = 0; i < size; ++i) {
        y[i] = value(kind, to_double(x[i]));
        dx[i] = to_double(dy[i]) * slope(kind, to_double(x[i]));  // x serves as some y
      }
      auto found_y = nan_values<T>(size), found_dx = dy;  // dx is written over dy
      cpu::activation(cpu_stream(), n, kind, x.data(), found_y.data());
      cpu::activation_grad<T>(cpu_stream(), n, kind, x.data(), found_dx.data(), nullptr, found_dx.data());
      EXPECT_LE(max_relative_error(found_y, y), tolerance<T>());
      EXPECT_LE(max_relative_error(found_dx, dx), tolerance<T>());

      for_each_schedule([&] {
        const DeviceArray<T> device_x(x);
        DeviceArray<T> device_y(size), device_dx(dy);
        cuda::activation(cuda_stream(), n, kind, device_x.data(), device_y.data());
        cuda::activation_grad<T>(cuda_stream(), n, kind, device_x.data(), device_dx.data(), nullptr, device_dx.data());
        EXPECT_LE(max_relative_error(device_y.host(), y), tolerance<T>());
        EXPECT_LE(max_relative_error(device_dx.host(), dx), tolerance<T>());
      });
    }
  }
}

TYPED_TEST(ActivationKernel, AddsTwoGradients) {
  using T = TypeParam;
  for (const size_t size : {1u, 7u, 8u, 16u, 33u, 1000u, 4099u}) {
    for (const Activation kind : kKinds) {
      SCOPED_TRACE(::testing::Message() << size << " elements, activation " << static_cast<int>(kind));
      const auto n = static_cast<int64_t>(size);
      // All gradients have one sign: sums that cancel would lose digits, which says nothing.
      const auto y = random_values<T>(size, 1, -4.0f, 9.0f), dy = random_values<T>(size, 2, 0.1f, 1.0f),
                 second = random_values<T>(size, 3, 0.1f, 1.0f);
      std::vector<double> dx(size);
      for (size_t i = 0; i < size; ++i)
        dx[i] = (to_double(dy[i]) + to_double(second[i])) * slope(kind, to_double(y[i]));
      auto apart = nan_values<T>(size), over_dy = dy, over_second = second;
      cpu::activation_grad(cpu_stream(), n, kind, y.data(), dy.data(), second.data(), apart.data());
      cpu::activation_grad(cpu_stream(), n, kind, y.data(), over_dy.data(), second.data(), over_dy.data());
      cpu::activation_grad(cpu_stream(), n, kind, y.data(), dy.data(), over_second.data(), over_second.data());
      for (const auto& found : {apart, over_dy, over_second}) EXPECT_LE(max_relative_error(found, dx), tolerance<T>());

      for_each_schedule([&] {
        const DeviceArray<T> device_y(y), device_dy(dy), device_second(second);
        DeviceArray<T> device_apart(size), device_over(second);
        cuda::activation_grad(cuda_stream(), n, kind, device_y.data(), device_dy.data(), device_second.data(),
                              device_apart.data());
        cuda::activation_grad(cuda_stream(), n, kind, device_y.data(), device_dy.data(), device_over.data(),
                              device_over.data());
        EXPECT_LE(max_relative_error(device_apart.host(), dx), tolerance<T>());
        EXPECT_LE(max_relative_error(device_over.host(), dx), tolerance<T>());
      });
    }
  }
}

struct Rows {
  int64_t rows;
  int channels;
};
// One and few channels (rows are folded, with and without a remainder), around a slab, several chunks.
constexpr Rows kRows[] = {{1, 1}, {1023, 1}, {1024, 1}, {300, 3}, {520, 16}, {77, 40}, {600, 33}, {1500, 8}};

TYPED_TEST(ActivationKernel, BiasGradientSumsTheRows) {
  using T = TypeParam;
  for (const Rows& shape : kRows) {
    for (const Activation kind : {Activation::kNone, Activation::kRelu, Activation::kSigmoid}) {
      SCOPED_TRACE(::testing::Message() << shape.rows << " x " << shape.channels << ", activation "
                                        << static_cast<int>(kind));
      const auto C = static_cast<size_t>(shape.channels), size = static_cast<size_t>(shape.rows) * C;
      const auto y = random_values<T>(size, 3, -0.5f, 0.9f), dy = random_values<T>(size, 4, -0.5f, 1.0f);
      std::vector<double> dx(size), dbias(C);
      for (size_t i = 0; i < size; ++i) {
        dx[i] = to_double(dy[i]) * slope(kind, to_double(y[i]));
        dbias[i % C] += dx[i];
      }
      // The CPU sums what it stored, so bf16 rounding errors of single terms remain.
      const double of_sums = tolerance<float>(shape.rows) + (std::is_same_v<T, bf16> ? 0x1p-8 : 0);

      auto found_dx = dy;
      auto found_dbias = nan_values<float>(C);
      cpu::bias_activation_grad(cpu_stream(), shape.rows, shape.channels, kind, y.data(), found_dx.data(),
                                found_dx.data(), found_dbias.data());
      EXPECT_LE(max_relative_error(found_dx, dx), tolerance<T>());
      EXPECT_LE(max_relative_error(found_dbias, dbias), of_sums);

      auto other_dx = nan_values<T>(size);
      cpu::bias_activation_grad<T>(cpu_stream(), shape.rows, shape.channels, kind, y.data(), dy.data(), other_dx.data(),
                                   nullptr);
      EXPECT_LE(max_relative_error(other_dx, dx), tolerance<T>());

      for_each_schedule([&] {
        const DeviceArray<T> device_y(y), device_dy(dy);
        DeviceArray<T> device_dx(size);
        DeviceArray<float> device_dbias(C);
        cuda::bias_activation_grad(cuda_stream(), shape.rows, shape.channels, kind, device_y.data(), device_dy.data(),
                                   device_dx.data(), device_dbias.data());
        EXPECT_LE(max_relative_error(device_dx.host(), dx), tolerance<T>());
        EXPECT_LE(max_relative_error(device_dbias.host(), dbias), of_sums);
      });
    }
  }
}

TYPED_TEST(ActivationKernel, NanPasses) {
  const std::vector<TypeParam> x(5, static_cast<TypeParam>(std::numeric_limits<float>::quiet_NaN()));
  for (const Activation kind : kKinds) {
    auto y = std::vector<TypeParam>(5, static_cast<TypeParam>(1.0f));
    cpu::activation(cpu_stream(), 5, kind, x.data(), y.data());
    const DeviceArray<TypeParam> device_x(x);
    DeviceArray<TypeParam> device_y(y);
    cuda::activation(cuda_stream(), 5, kind, device_x.data(), device_y.data());
    for (const TypeParam v : y) EXPECT_TRUE(std::isnan(to_double(v)));
    for (const TypeParam v : device_y.host()) EXPECT_TRUE(std::isnan(to_double(v)));
  }
}

}  // namespace
}  // namespace depthstill
