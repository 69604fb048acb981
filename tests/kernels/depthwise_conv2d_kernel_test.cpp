#include "kernels/depthwise_conv2d.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class DepthwiseConv2dKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(DepthwiseConv2dKernel, Types);

// N, H, W, C, stride, dilation, padding above and to the left, kernel. Channels around the widths of vectors and slabs;
// maps smaller than the dilation; odd sizes with stride 2; paddings that differ from each other and from TensorFlow's.
const DepthwiseShape kShapes[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 3},   {2, 5, 7, 3, 1, 1, 1, 1, 3},   {1, 9, 6, 16, 1, 1, 1, 1, 3},
    {2, 6, 11, 40, 1, 2, 2, 2, 3}, {1, 7, 5, 33, 1, 4, 4, 4, 3},  {1, 3, 2, 8, 1, 4, 4, 4, 3},
    {2, 7, 9, 17, 2, 1, 1, 1, 3},  {1, 8, 10, 32, 2, 1, 1, 1, 3}, {1, 6, 13, 8, 2, 2, 2, 2, 3},
    {1, 2, 19, 20, 2, 3, 3, 3, 3}, {3, 12, 33, 8, 1, 1, 1, 1, 3}, {1, 17, 40, 5, 2, 1, 1, 1, 3},
    {1, 8, 10, 17, 2, 1, 0, 0, 3}, {2, 7, 12, 8, 2, 1, 1, 0, 3},  {1, 5, 6, 9, 1, 2, 0, 4, 3},
    {1, 1, 1, 1, 1, 1, 2, 2, 5},   {2, 5, 7, 19, 1, 1, 2, 2, 5},  {1, 8, 22, 40, 2, 1, 1, 1, 5},
    {2, 7, 9, 4, 2, 1, 2, 2, 5},   {1, 9, 12, 8, 1, 2, 3, 8, 5},  {1, 3, 2, 33, 2, 1, 0, 4, 5},
};

struct Gradients {
  std::vector<double> y, dx, dweight;
};

// The formulas of the header, tap by tap.
template <class T>
Gradients reference(const DepthwiseShape& s, const std::vector<T>& x, const std::vector<float>& weight,
                    const std::vector<T>& dy) {
  Gradients g;
  g.y.assign(dy.size(), 0.0);
  g.dx.assign(x.size(), 0.0);
  g.dweight.assign(weight.size(), 0.0);
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t p = 0; p < s.P(); ++p) {
      for (int64_t q = 0; q < s.Q(); ++q) {
        for (int64_t r = 0; r < s.kernel; ++r) {
          for (int64_t t = 0; t < s.kernel; ++t) {
            const int64_t h = p * s.stride + r * s.dilation - s.pad_top, w = q * s.stride + t * s.dilation - s.pad_left;
            if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
            for (int64_t c = 0; c < s.C; ++c) {
              const auto i = static_cast<size_t>(((n * s.H + h) * s.W + w) * s.C + c);
              const auto o = static_cast<size_t>(((n * s.P() + p) * s.Q() + q) * s.C + c);
              const auto k = static_cast<size_t>((r * s.kernel + t) * s.C + c);
              g.y[o] += to_double(x[i]) * to_double(weight[k]);
              g.dx[i] += to_double(dy[o]) * to_double(weight[k]);
              g.dweight[k] += to_double(dy[o]) * to_double(x[i]);
            }
          }
        }
      }
    }
  }
  return g;
}

TYPED_TEST(DepthwiseConv2dKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const DepthwiseShape& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.N << "x" << s.H << "x" << s.W << "x" << s.C << " stride " << s.stride
                                      << " dilation " << s.dilation << " padding " << s.pad_top << ", " << s.pad_left
                                      << " kernel " << s.kernel);
    const auto x = random_values<T>(static_cast<size_t>(s.N * s.H * s.W * s.C), 1, -1.0f, 2.0f);
    const auto weight = random_values<float>(static_cast<size_t>(s.kernel * s.kernel * s.C), 2);
    const auto dy = random_values<T>(static_cast<size_t>(s.N * s.P() * s.Q() * s.C), 3, -2.0f, 1.0f);
    const Gradients expected = reference(s, x, weight, dy);
    const double map_tolerance = tolerance<T>(s.kernel * s.kernel),
                 sum_tolerance = tolerance<float>(s.N * s.P() * s.Q());

    auto y = nan_values<T>(dy.size()), dx = nan_values<T>(x.size());
    auto dweight = nan_values<float>(weight.size());
    cpu::depthwise_conv2d(cpu_stream(), s, x.data(), weight.data(), y.data());
    cpu::depthwise_conv2d_dx(cpu_stream(), s, dy.data(), weight.data(), dx.data());
    cpu::depthwise_conv2d_dweight(cpu_stream(), s, x.data(), dy.data(), dweight.data());
    EXPECT_LE(max_relative_error(y, expected.y), map_tolerance);
    EXPECT_LE(max_relative_error(dx, expected.dx), map_tolerance);
    EXPECT_LE(max_relative_error(dweight, expected.dweight), sum_tolerance);

    for_each_schedule([&] {
      const DeviceArray<T> device_x(x), device_dy(dy);
      const DeviceArray<float> device_weight(weight);
      DeviceArray<T> device_y(dy.size()), device_dx(x.size());
      DeviceArray<float> device_dweight(weight.size());
      cuda::depthwise_conv2d(cuda_stream(), s, device_x.data(), device_weight.data(), device_y.data());
      cuda::depthwise_conv2d_dx(cuda_stream(), s, device_dy.data(), device_weight.data(), device_dx.data());
      cuda::depthwise_conv2d_dweight(cuda_stream(), s, device_x.data(), device_dy.data(), device_dweight.data());
      EXPECT_LE(max_relative_error(device_y.host(), expected.y), map_tolerance);
      EXPECT_LE(max_relative_error(device_dx.host(), expected.dx), map_tolerance);
      EXPECT_LE(max_relative_error(device_dweight.host(), expected.dweight), sum_tolerance);
    });
  }
}

// Several chunks of rows per slab, and rows that do not divide evenly among them.
TYPED_TEST(DepthwiseConv2dKernel, SumsManyChunksOfPositions) {
  using T = TypeParam;
  for (const DepthwiseShape& s : {DepthwiseShape{2, 21, 37, 40, 1, 2, 2, 2, 3}, {1, 21, 37, 40, 1, 1, 1, 2, 5}}) {
    const auto x = random_values<T>(static_cast<size_t>(s.N * s.H * s.W * s.C), 4, -1.0f, 2.0f);
    const auto dy = random_values<T>(x.size(), 5);
    const auto weight = random_values<float>(static_cast<size_t>(s.kernel * s.kernel * s.C), 6);
    const auto expected = reference(s, x, weight, dy).dweight;
    for_each_schedule([&] {
      const DeviceArray<T> device_x(x), device_dy(dy);
      DeviceArray<float> dweight(expected.size());
      cuda::depthwise_conv2d_dweight(cuda_stream(), s, device_x.data(), device_dy.data(), dweight.data());
      EXPECT_LE(max_relative_error(dweight.host(), expected), tolerance<float>(s.N * s.H * s.W));
    });
  }
}

}  // namespace
}  // namespace depthstill
