#include "kernels/pointwise.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr float kMax = 0.4f;  // bound of clamp_max
constexpr UnaryKind kUnary[] = {UnaryKind::kAbs, UnaryKind::kExp, UnaryKind::kLog, UnaryKind::kSquare,
                                UnaryKind::kClampMax};
constexpr BinaryKind kBinary[] = {BinaryKind::kSub, BinaryKind::kMul, BinaryKind::kDiv};
constexpr size_t kSizes[] = {1, 3, 8, 9, 255, 2048, 4099};

double value_of(UnaryKind kind, double x) {
  switch (kind) {
    case UnaryKind::kAbs:
      return std::abs(x);
    case UnaryKind::kExp:
      return std::exp(x);
    case UnaryKind::kLog:
      return std::log(x);
    case UnaryKind::kSquare:
      return x * x;
    case UnaryKind::kClampMax:
      return std::min(x, to_double(kMax));
  }
  return NAN;
}

double slope_of(UnaryKind kind, double x) {
  switch (kind) {
    case UnaryKind::kAbs:
      return x > 0 ? 1 : -1;
    case UnaryKind::kExp:
      return std::exp(x);
    case UnaryKind::kLog:
      return 1 / x;
    case UnaryKind::kSquare:
      return 2 * x;
    case UnaryKind::kClampMax:
      return x <= to_double(kMax) ? 1 : 0;
  }
  return NAN;
}

double value_of(BinaryKind kind, double a, double b) {
  return kind == BinaryKind::kSub ? a - b : kind == BinaryKind::kMul ? a * b : a / b;
}
double slope_of_a(BinaryKind kind, double b) {
  return kind == BinaryKind::kSub ? 1 : kind == BinaryKind::kMul ? b : 1 / b;
}
double slope_of_b(BinaryKind kind, double a, double b) {
  return kind == BinaryKind::kSub ? -1 : kind == BinaryKind::kMul ? a : -a / (b * b);
}

template <class T>
class PointwiseKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(PointwiseKernel, Types);

// The ops work from `offset` on, so that 1 is unaligned; what stands before must stay as it is.
TYPED_TEST(PointwiseKernel, UnaryFunctionsAndTheirGradients) {
  using T = TypeParam;
  for (const UnaryKind kind : kUnary) {
    for (const size_t offset : {0, 1}) {
      for (const size_t n : kSizes) {
        SCOPED_TRACE(::testing::Message() << "kind " << static_cast<int>(kind) << ", " << n << " from " << offset);
        const float low = kind == UnaryKind::kLog ? 0.2f : -1.5f;
        const auto x = random_values<T>(n + offset, 1, low, 2.0f), dy = random_values<T>(n + offset, 2, -1.0f, 1.5f);
        std::vector<double> y_expected(n + offset, NAN), dx_expected(n + offset, NAN);
        for (size_t i = offset; i < n + offset; ++i) {
          y_expected[i] = value_of(kind, to_double(x[i]));
          dx_expected[i] = slope_of(kind, to_double(x[i])) * to_double(dy[i]);
        }
        const auto size = static_cast<int64_t>(n);
        auto y = nan_values<T>(n + offset), dx = y;
        cpu::unary(cpu_stream(), kind, kMax, size, x.data() + offset, y.data() + offset);
        cpu::unary_grad(cpu_stream(), kind, kMax, size, x.data() + offset, dy.data() + offset, dx.data() + offset);
        EXPECT_LE(max_relative_error(y, y_expected), tolerance<T>());
        EXPECT_LE(max_relative_error(dx, dx_expected), tolerance<T>());
        for_each_schedule([&] {
          const DeviceArray<T> x_device(x), dy_device(dy);
          DeviceArray<T> y_device(n + offset), dx_device(n + offset);
          cuda::unary(cuda_stream(), kind, kMax, size, x_device.data() + offset, y_device.data() + offset);
          cuda::unary_grad(cuda_stream(), kind, kMax, size, x_device.data() + offset, dy_device.data() + offset,
                           dx_device.data() + offset);
          EXPECT_LE(max_relative_error(y_device.host(), y_expected), tolerance<T>());
          EXPECT_LE(max_relative_error(dx_device.host(), dx_expected), tolerance<T>());
        });
      }
    }
  }
}

TYPED_TEST(PointwiseKernel, BinaryFunctionsAndTheirGradients) {
  using T = TypeParam;
  for (const BinaryKind kind : kBinary) {
    for (const size_t offset : {0, 1}) {
      for (const size_t n : kSizes) {
        SCOPED_TRACE(::testing::Message() << "kind " << static_cast<int>(kind) << ", " << n << " from " << offset);
        const auto a = random_values<T>(n + offset, 1, -1.5f, 2.0f), b = random_values<T>(n + offset, 2, 0.3f, 2.0f);
        const auto dy = random_values<T>(n + offset, 3, -1.0f, 1.5f);
        std::vector<double> y_expected(n + offset, NAN), da_expected = y_expected, db_expected = y_expected;
        for (size_t i = offset; i < n + offset; ++i) {
          y_expected[i] = value_of(kind, to_double(a[i]), to_double(b[i]));
          da_expected[i] = slope_of_a(kind, to_double(b[i])) * to_double(dy[i]);
          db_expected[i] = slope_of_b(kind, to_double(a[i]), to_double(b[i])) * to_double(dy[i]);
        }
        const auto size = static_cast<int64_t>(n);
        auto y = nan_values<T>(n + offset), da = y, db = y;
        cpu::binary(cpu_stream(), kind, size, a.data() + offset, b.data() + offset, y.data() + offset);
        cpu::binary_grad<T>(cpu_stream(), kind, size, a.data() + offset, b.data() + offset, dy.data() + offset,
                            da.data() + offset, nullptr);
        cpu::binary_grad<T>(cpu_stream(), kind, size, a.data() + offset, b.data() + offset, dy.data() + offset, nullptr,
                            db.data() + offset);
        EXPECT_LE(max_relative_error(y, y_expected), tolerance<T>());
        EXPECT_LE(max_relative_error(da, da_expected), tolerance<T>());
        EXPECT_LE(max_relative_error(db, db_expected), 2 * tolerance<T>());
        for_each_schedule([&] {
          const DeviceArray<T> a_device(a), b_device(b), dy_device(dy);
          DeviceArray<T> y_device(n + offset), da_device(n + offset), db_device(n + offset);
          cuda::binary(cuda_stream(), kind, size, a_device.data() + offset, b_device.data() + offset,
                       y_device.data() + offset);
          cuda::binary_grad<T>(cuda_stream(), kind, size, a_device.data() + offset, b_device.data() + offset,
                               dy_device.data() + offset, da_device.data() + offset, db_device.data() + offset);
          EXPECT_LE(max_relative_error(y_device.host(), y_expected), tolerance<T>());
          EXPECT_LE(max_relative_error(da_device.host(), da_expected), tolerance<T>());
          EXPECT_LE(max_relative_error(db_device.host(), db_expected), 2 * tolerance<T>());
        });
      }
    }
  }
}

// What a mask left out of a sum gets a gradient of 0.
TEST(PointwiseKernelZeros, NoGradientGoesOnWhereNoneArrives) {
  const std::vector<float> x = {0.0f, -1.0f, INFINITY, NAN, 1.0f}, dy = {0.0f, 0.0f, 0.0f, 0.0f, 2.0f};
  const std::vector<float> ones(x.size(), 1.0f);
  for (const UnaryKind kind : kUnary) {
    auto dx = nan_values<float>(x.size());
    cpu::unary_grad(cpu_stream(), kind, kMax, 5, x.data(), dy.data(), dx.data());
    EXPECT_EQ(std::vector<float>(dx.begin(), dx.end() - 1), std::vector<float>(4, 0.0f));
    for_each_schedule([&] {
      const DeviceArray<float> x_device(x), dy_device(dy);
      DeviceArray<float> dx_device(x.size());
      cuda::unary_grad(cuda_stream(), kind, kMax, 5, x_device.data(), dy_device.data(), dx_device.data());
      EXPECT_EQ(dx_device.host(), dx);
    });
  }
  for (const BinaryKind kind : kBinary) {
    auto da = nan_values<float>(x.size()), db = da;
    cpu::binary_grad(cpu_stream(), kind, 5, ones.data(), x.data(), dy.data(), da.data(), db.data());
    for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(da[i] == 0.0f && db[i] == 0.0f) << i;
  }
}

}  // namespace
}  // namespace depthstill
