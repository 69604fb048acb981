#include "kernels/softmax.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class SoftmaxKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(SoftmaxKernel, Types);

struct Row {
  int64_t rows, cols;
};
constexpr Row kShapes[] = {{1, 1}, {3, 2}, {9, 8}, {20, 33}, {17, 257}, {5, 264}, {2, 1031}};

template <class T>
struct Expected {
  std::vector<double> y, dx;

  // The gradient's formula holds for any y; one that is not nearly one-hot keeps dx from cancelling.
  Expected(const Row& s, const std::vector<T>& x, const std::vector<T>& any_y, const std::vector<T>& dy) {
    const auto cols = static_cast<size_t>(s.cols);
    for (size_t begin = 0; begin < x.size(); begin += cols) {
      double max = -INFINITY, sum = 0, dot = 0;
      for (size_t i = begin; i < begin + cols; ++i) max = std::max(max, to_double(x[i]));
      for (size_t i = begin; i < begin + cols; ++i) {
        sum += std::exp(to_double(x[i]) - max);
        dot += to_double(any_y[i]) * to_double(dy[i]);
      }
      for (size_t i = begin; i < begin + cols; ++i) {
        y.push_back(std::exp(to_double(x[i]) - max) / sum);
        dx.push_back(to_double(any_y[i]) * (to_double(dy[i]) - dot));
      }
    }
  }
};

TYPED_TEST(SoftmaxKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const Row& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.rows << "x" << s.cols);
    const auto n = static_cast<size_t>(s.rows * s.cols);
    const auto x = random_values<T>(n, 1, -40.0f, 95.0f), dy = random_values<T>(n, 2);  // exp(95) overflows float
    const auto any_y = random_values<T>(n, 3, 0.1f, 0.9f);
    auto y = nan_values<T>(n), dx = nan_values<T>(n);
    cpu::softmax(cpu_stream(), s.rows, s.cols, x.data(), y.data());
    cpu::softmax_grad(cpu_stream(), s.rows, s.cols, any_y.data(), dy.data(), dx.data());
    const Expected<T> expected(s, x, any_y, dy);
    // exp(t) for t down to -135 has a relative error of about |t| eps.
    EXPECT_LE(max_relative_error(y, expected.y), tolerance<T>(s.cols) + 135 * 0x1p-24);
    EXPECT_LE(max_relative_error(dx, expected.dx), tolerance<T>(s.cols));

    for_each_schedule([&] {
      const DeviceArray<T> x_device(x), any_y_device(any_y), dy_device(dy);
      DeviceArray<T> y_device(n), dx_device(n);
      cuda::softmax(cuda_stream(), s.rows, s.cols, x_device.data(), y_device.data());
      cuda::softmax_grad(cuda_stream(), s.rows, s.cols, any_y_device.data(), dy_device.data(), dx_device.data());
      EXPECT_LE(max_relative_error(y_device.host(), expected.y), tolerance<T>(s.cols) + 135 * 0x1p-24);
      EXPECT_LE(max_relative_error(dx_device.host(), expected.dx), tolerance<T>(s.cols));
    });
  }
}

TYPED_TEST(SoftmaxKernel, WorksInPlaceAndKeepsNaNInItsRow) {
  using T = TypeParam;
  const Row s{3, 40};
  auto x = random_values<T>(120, 3);
  x[45] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
  auto y = nan_values<T>(120);
  cpu::softmax(cpu_stream(), s.rows, s.cols, x.data(), y.data());
  for (size_t i = 0; i < 120; ++i) EXPECT_EQ(std::isnan(to_double(y[i])), i / 40 == 1) << i;

  auto in_place = x;
  cpu::softmax(cpu_stream(), s.rows, s.cols, in_place.data(), in_place.data());
  EXPECT_EQ(max_relative_error(in_place, y), 0.0);
  for_each_schedule([&] {
    DeviceArray<T> device(x);
    cuda::softmax(cuda_stream(), s.rows, s.cols, device.data(), device.data());
    EXPECT_LE(max_relative_error(device.host(), y), tolerance<T>(s.cols));
  });
}

}  // namespace
}  // namespace depthstill
