#include "kernels/swiglu.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class SwigluKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(SwigluKernel, Types);

struct Size {
  int64_t rows, channels;
};
constexpr Size kSizes[] = {{1, 1}, {3, 7}, {19, 33}, {11, 264}, {2, 1031}};

TYPED_TEST(SwigluKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const Size& s : kSizes) {
    SCOPED_TRACE(::testing::Message() << s.rows << "x" << s.channels);
    const auto C = static_cast<size_t>(s.channels), n = static_cast<size_t>(s.rows) * C;
    auto x = random_values<T>(2 * n, 1, -5.0f, 5.0f);
    const auto dy = random_values<T>(n, 2, -1.5f, 1.0f);
    if (n > 1) x[0] = static_cast<T>(-120.0f);  // exp(120) overflows float
    std::vector<double> y, dx(2 * n);
    for (size_t i = 0; i < n; ++i) {
      const size_t at = i / C * 2 * C + i % C;
      const double a = to_double(x[at]), b = to_double(x[at + C]), sigmoid = 1 / (1 + std::exp(-a));
      y.push_back(a * sigmoid * b);
      dx[at] = to_double(dy[i]) * b * sigmoid * (1 + a * (1 - sigmoid));
      dx[at + C] = to_double(dy[i]) * a * sigmoid;
    }
    auto actual_y = nan_values<T>(n), actual_dx = nan_values<T>(2 * n), in_place = x;
    cpu::swiglu(cpu_stream(), s.rows, s.channels, x.data(), actual_y.data());
    cpu::swiglu_grad(cpu_stream(), s.rows, s.channels, x.data(), dy.data(), actual_dx.data());
    cpu::swiglu_grad(cpu_stream(), s.rows, s.channels, in_place.data(), dy.data(), in_place.data());
    EXPECT_LE(max_relative_error(actual_y, y), tolerance<T>());
    EXPECT_LE(max_relative_error(actual_dx, dx), tolerance<T>());
    EXPECT_EQ(max_relative_error(in_place, actual_dx), 0.0);

    for_each_schedule([&] {
      const DeviceArray<T> dy_device(dy);
      DeviceArray<T> x_device(x), y_device(n), dx_device(2 * n);
      cuda::swiglu(cuda_stream(), s.rows, s.channels, x_device.data(), y_device.data());
      cuda::swiglu_grad(cuda_stream(), s.rows, s.channels, x_device.data(), dy_device.data(), dx_device.data());
      cuda::swiglu_grad(cuda_stream(), s.rows, s.channels, x_device.data(), dy_device.data(), x_device.data());
      EXPECT_LE(max_relative_error(y_device.host(), y), tolerance<T>());
      EXPECT_LE(max_relative_error(dx_device.host(), dx), tolerance<T>());
      EXPECT_EQ(max_relative_error(x_device.host(), dx_device.host()), 0.0);
    });
  }
}

}  // namespace
}  // namespace depthstill
