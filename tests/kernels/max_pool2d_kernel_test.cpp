#include "kernels/max_pool2d.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class MaxPool2dKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(MaxPool2dKernel, Types);

// N, H, W, C, kernel, stride, pad: ResNet's 3/2/1, no padding, overlapping and gapped windows, blocks of channels.
const MaxPoolShape kShapes[] = {{1, 1, 1, 1, 3, 2, 1},   {2, 8, 11, 16, 3, 2, 1}, {1, 7, 9, 65, 3, 2, 1},
                                {1, 6, 7, 5, 2, 2, 0},   {2, 9, 6, 8, 3, 1, 1},   {1, 10, 13, 3, 2, 3, 0},
                                {1, 20, 17, 8, 5, 2, 2}, {1, 16, 15, 1, 15, 4, 7}};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class T>
struct Result {
  std::vector<T> y, dx;
  std::vector<uint8_t> index;
};

template <class T>
Result<T> run_cpu(const MaxPoolShape& s, const std::vector<T>& x, const std::vector<T>& dy) {
  Result<T> result{nan_values<T>(dy.size()), nan_values<T>(x.size()), std::vector<uint8_t>(dy.size(), 0xff)};
  cpu::max_pool2d(cpu_stream(), s, x.data(), result.y.data(), result.index.data());
  cpu::max_pool2d_grad(cpu_stream(), s, dy.data(), result.index.data(), result.dx.data());
  return result;
}

template <class T>
Result<T> run_cuda(const MaxPoolShape& s, const std::vector<T>& x, const std::vector<T>& dy) {
  const DeviceArray<T> device_x(x), device_dy(dy);
  DeviceArray<T> y(dy.size()), dx(x.size());
  DeviceArray<uint8_t> index(dy.size());
  cuda::max_pool2d(cuda_stream(), s, device_x.data(), y.data(), index.data());
  cuda::max_pool2d_grad(cuda_stream(), s, device_dy.data(), index.data(), dx.data());
  return {y.host(), dx.host(), index.host()};
}

// The reference goes window by window and scatters the gradient.
template <class T>
void expect_reference(const MaxPoolShape& s, const std::vector<T>& x, const std::vector<T>& dy,
                      const Result<T>& found) {
  std::vector<double> y(dy.size()), dx(x.size(), 0.0);
  for (int64_t o = 0; o < static_cast<int64_t>(dy.size()); ++o) {
    const int64_t c = o % s.C, q = o / s.C % s.Q(), p = o / s.C / s.Q() % s.P(), n = o / s.C / s.Q() / s.P();
    int64_t best = -1, tap = -1;
    for (int64_t r = 0; r < s.kernel; ++r) {
      for (int64_t t = 0; t < s.kernel; ++t) {
        const int64_t h = p * s.stride - s.pad + r, w = q * s.stride - s.pad + t;
        if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
        const int64_t i = ((n * s.H + h) * s.W + w) * s.C + c;
        const double value = to_double(x[static_cast<size_t>(i)]);
        if (best < 0 || value > to_double(x[static_cast<size_t>(best)]) || std::isnan(value)) {
          best = i;
          tap = r * s.kernel + t;
        }
      }
    }
    y[static_cast<size_t>(o)] = to_double(x[static_cast<size_t>(best)]);
    dx[static_cast<size_t>(best)] += to_double(dy[static_cast<size_t>(o)]);
    ASSERT_EQ(found.index[static_cast<size_t>(o)], tap) << "output " << o;
  }
  EXPECT_EQ(max_relative_error(found.y, y), 0.0);
  EXPECT_LE(max_relative_error(found.dx, dx), tolerance<T>(s.kernel * s.kernel));
}

TYPED_TEST(MaxPool2dKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const MaxPoolShape& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.N << "x" << s.H << "x" << s.W << "x" << s.C << " kernel " << s.kernel
                                      << " stride " << s.stride << " pad " << s.pad);
    auto x = random_values<T>(static_cast<size_t>(s.N * s.H * s.W * s.C), 1, -3.0f, -1.0f);
    for (T& value : x) value = static_cast<T>(std::round(static_cast<float>(value) * 2.0f));  // many ties
    const auto dy = random_values<T>(static_cast<size_t>(s.N * s.P() * s.Q() * s.C), 2);
    expect_reference(s, x, dy, run_cpu(s, x, dy));
    for_each_schedule([&] { expect_reference(s, x, dy, run_cuda(s, x, dy)); });
  }
}

TYPED_TEST(MaxPool2dKernel, NanAndInfinityCount) {
  using T = TypeParam;
  const MaxPoolShape s{1, 7, 7, 9, 3, 2, 1};
  auto x = random_values<T>(static_cast<size_t>(s.H * s.W * s.C), 3);
  for (size_t i = 0; i < x.size(); i += 5) x[i] = static_cast<T>(-std::numeric_limits<float>::infinity());
  for (size_t i = 3; i < x.size(); i += 71) x[i] = static_cast<T>(kNan);
  const auto dy = random_values<T>(static_cast<size_t>(s.P() * s.Q() * s.C), 4);
  expect_reference(s, x, dy, run_cpu(s, x, dy));
  expect_reference(s, x, dy, run_cuda(s, x, dy));
}

TYPED_TEST(MaxPool2dKernel, IndexIsOptional) {
  using T = TypeParam;
  const MaxPoolShape s{1, 6, 9, 8, 3, 2, 1};
  const auto x = random_values<T>(static_cast<size_t>(s.H * s.W * s.C), 5);
  const auto dy = random_values<T>(static_cast<size_t>(s.P() * s.Q() * s.C), 6);
  auto y = nan_values<T>(dy.size());
  cpu::max_pool2d(cpu_stream(), s, x.data(), y.data(), nullptr);
  const DeviceArray<T> device_x(x);
  DeviceArray<T> device_y(dy.size());
  cuda::max_pool2d(cuda_stream(), s, device_x.data(), device_y.data(), nullptr);
  const Result<T> expected = run_cpu(s, x, dy);
  EXPECT_EQ(max_relative_error(y, expected.y), 0.0);
  EXPECT_EQ(max_relative_error(device_y.host(), expected.y), 0.0);
}

}  // namespace
}  // namespace depthstill
