#include "kernels/upsample_bicubic.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class UpsampleBicubicKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(UpsampleBicubicKernel, Types);

// N, C, {in, out, scale} of rows and columns. Outputs are larger, equal, smaller; there are single rows and columns,
// maps smaller than the four taps, scales that are not out / in, also ones that read far beyond the map, channels
// around the vector widths, and more columns than a block has.
const BicubicShape kShapes[] = {
    {1, 1, {1, 1, 0}, {1, 1, 0}},     {2, 3, {1, 4, 0}, {2, 3, 0}},     {1, 5, {4, 1, 0}, {3, 1, 0}},
    {2, 4, {5, 10, 0}, {7, 14, 0}},   {1, 16, {3, 7, 0}, {9, 13, 0}},   {1, 19, {11, 4, 0}, {17, 9, 0}},
    {2, 8, {6, 6, 0}, {6, 6, 0}},     {1, 1, {2, 3, 0}, {130, 301, 0}}, {1, 24, {7, 9, 9.1 / 7}, {7, 5, 5.1 / 7}},
    {1, 2, {5, 9, 0.7}, {4, 3, 3.3}},
};

double cubic(double d) {
  const double A = -0.75;
  d = std::abs(d);
  if (d <= 1) return ((A + 2) * d - (A + 3)) * d * d + 1;
  return d < 2 ? A * (((d - 5) * d + 8) * d - 4) : 0;
}

// Weights of one axis, [out][in], from the formula.
std::vector<std::vector<double>> weights(int in, int out, double inverse_scale) {
  std::vector<std::vector<double>> w(static_cast<size_t>(out), std::vector<double>(static_cast<size_t>(in)));
  for (int o = 0; o < out; ++o) {
    const double s = (o + 0.5) * inverse_scale - 0.5;
    const int f = static_cast<int>(std::floor(s));
    for (int k = f - 1; k <= f + 2; ++k) w[size_t(o)][size_t(std::clamp(k, 0, in - 1))] += cubic(s - k);
  }
  return w;
}

template <class T>
struct Case {
  explicit Case(const BicubicShape& s)
      : x(random_values<T>(static_cast<size_t>(s.N * s.rows.in * s.cols.in * s.C), 1)),
        dy(random_values<T>(static_cast<size_t>(s.N * s.rows.out * s.cols.out * s.C), 2)),
        y_expected(dy.size()),
        dx_expected(x.size()) {
    const auto wy = weights(s.rows.in, s.rows.out, s.rows.inverse_scale);
    const auto wx = weights(s.cols.in, s.cols.out, s.cols.inverse_scale);
    for (int64_t at = 0; at < s.N * s.rows.out * s.cols.out; ++at) {
      const auto q = static_cast<size_t>(at % s.cols.out), p = static_cast<size_t>(at / s.cols.out % s.rows.out);
      const int64_t n = at / s.cols.out / s.rows.out;
      for (int i = 0; i < s.rows.in; ++i) {
        for (int j = 0; j < s.cols.in; ++j) {
          const double w = wy[p][static_cast<size_t>(i)] * wx[q][static_cast<size_t>(j)];
          for (int64_t c = 0; c < s.C; ++c) {
            const auto from = static_cast<size_t>(((n * s.rows.in + i) * s.cols.in + j) * s.C + c);
            const auto to = static_cast<size_t>(at * s.C + c);
            y_expected[to] += w * to_double(x[from]);
            dx_expected[from] += w * to_double(dy[to]);
          }
        }
      }
    }
  }
  std::vector<T> x, dy;
  std::vector<double> y_expected, dx_expected;
};

TYPED_TEST(UpsampleBicubicKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const BicubicShape& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.N << "x" << s.rows.in << "x" << s.cols.in << "x" << s.C << " to "
                                      << s.rows.out << "x" << s.cols.out);
    const Case<T> expected(s);
    auto y = nan_values<T>(expected.dy.size()), dx = nan_values<T>(expected.x.size());
    cpu::upsample_bicubic(cpu_stream(), s, expected.x.data(), y.data());
    cpu::upsample_bicubic_grad(cpu_stream(), s, expected.dy.data(), dx.data());
    EXPECT_LE(max_relative_error(y, expected.y_expected), tolerance<T>(16));
    EXPECT_LE(max_relative_error(dx, expected.dx_expected), tolerance<T>(64));

    for_each_schedule([&] {
      const DeviceArray<T> x_device(expected.x), dy_device(expected.dy);
      DeviceArray<T> y_device(y.size()), dx_device(dx.size());
      cuda::upsample_bicubic(cuda_stream(), s, x_device.data(), y_device.data());
      cuda::upsample_bicubic_grad(cuda_stream(), s, dy_device.data(), dx_device.data());
      EXPECT_LE(max_relative_error(y_device.host(), expected.y_expected), tolerance<T>(16));
      EXPECT_LE(max_relative_error(dx_device.host(), expected.dx_expected), tolerance<T>(64));
    });
  }
}

// Every (output, input) pair of many sizes and scales: readers() misses no output with a weight, and the weights of an
// output sum to one.
TEST(UpsampleBicubicKernelAxis, RangesMissNoReader) {
  for (const double factor : {0.0, 0.6, 1.003, 2.5}) {
    for (int in = 1; in <= 13; ++in) {
      for (int out = 1; out <= 40; ++out) {
        const BicubicAxis axis(in, out, factor * out / in);
        for (int o = 0; o < out; ++o) {
          float sum = 0.0f;
          for (int i = 0; i < in; ++i) {
            const float weight = axis.weight(o, i);
            const BicubicAxis::Range range = axis.readers(i);
            ASSERT_TRUE(range.first >= 0 && range.last < out);
            ASSERT_TRUE(weight == 0.0f || (range.first <= o && o <= range.last)) << in << " " << out << " " << o;
            sum += weight;
          }
          // The polynomials pass through terms of up to 9.
          ASSERT_NEAR(sum, 1.0f, 4 * 9 * std::numeric_limits<float>::epsilon()) << in << " " << out << " " << o;
        }
      }
    }
  }
}

// DINOv2's positional embeddings: a 37 x 37 grid at the published scale (n + 0.1) / 37. Values from PyTorch.
TEST(UpsampleBicubicKernelAxis, PositionalEmbeddings) {
  const int in = 37, n = 40;
  std::vector<float> x, y(n * n);
  for (int i = 0; i < in; ++i) {
    for (int j = 0; j < in; ++j) {
      x.push_back(static_cast<float>(std::sin(0.3 * i) + std::cos(0.2 * j) + 0.01 * i * j));
    }
  }
  const BicubicAxis axis(in, n, (n + 0.1) / in);
  cpu::upsample_bicubic(cpu_stream(), {1, 1, axis, axis}, x.data(), y.data());
  EXPECT_NEAR(y[0], 0.992624f, 2e-6f);
  EXPECT_NEAR(y[1], 0.977854f, 2e-6f);
  EXPECT_NEAR(y[20 * n + 13], 0.784713f, 2e-6f);
  EXPECT_NEAR(y[39 * n + 39], 12.56829f, 2e-5f);
}

}  // namespace
}  // namespace depthstill
