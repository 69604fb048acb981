#include "kernels/depthwise/depthwise_conv2d.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class DepthwiseConv2dKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(DepthwiseConv2dKernel, Types);

// N, H, W, C, stride, dilation, padding above and to the left, kernel. Channels around the widths of vectors and slabs;
// maps smaller than the dilation; odd sizes with stride 2; paddings that differ from each other and from TensorFlow's;
// first or last outputs that no tap reaches.
const DepthwiseShape kShapes[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 3},   {2, 5, 7, 3, 1, 1, 1, 1, 3},   {1, 9, 6, 16, 1, 1, 1, 1, 3},
    {2, 6, 11, 40, 1, 2, 2, 2, 3}, {1, 7, 5, 33, 1, 4, 4, 4, 3},  {1, 3, 2, 8, 1, 4, 4, 4, 3},
    {2, 7, 9, 17, 2, 1, 1, 1, 3},  {1, 8, 10, 32, 2, 1, 1, 1, 3}, {1, 6, 13, 8, 2, 2, 2, 2, 3},
    {1, 2, 19, 20, 2, 3, 3, 3, 3}, {3, 12, 33, 8, 1, 1, 1, 1, 3}, {1, 17, 40, 5, 2, 1, 1, 1, 3},
    {1, 8, 10, 17, 2, 1, 0, 0, 3}, {2, 7, 12, 8, 2, 1, 1, 0, 3},  {1, 5, 6, 9, 1, 2, 0, 4, 3},
    {1, 1, 1, 1, 1, 1, 2, 2, 5},   {2, 5, 7, 19, 1, 1, 2, 2, 5},  {1, 8, 22, 40, 2, 1, 1, 1, 5},
    {2, 7, 9, 4, 2, 1, 2, 2, 5},   {1, 9, 12, 8, 1, 2, 3, 8, 5},  {1, 3, 2, 33, 2, 1, 0, 4, 5},
    {1, 2, 3, 5, 1, 4, 1, 1, 3},   {1, 2, 3, 20, 1, 4, 3, 3, 3},
};

// The batch norm before the convolution, or none: rstd is empty then.
struct Norm {
  Activation act = Activation::kNone;
  std::vector<float> mean, rstd, weight, bias;

  static Norm random(Activation act, int64_t channels) {
    const auto C = static_cast<size_t>(channels);
    return {act, random_values<float>(C, 11, -0.5f, 1.5f), random_values<float>(C, 12, 0.5f, 3.0f),
            random_values<float>(C, 13, -2.0f, 3.0f), random_values<float>(C, 14, -1.0f, 3.0f)};
  }
  BatchNormInput on_host() const {
    if (rstd.empty()) return {};
    return {act, mean.data(), rstd.data(), weight.data(), bias.data()};
  }
  double operator()(double x, size_t c) const {
    if (rstd.empty()) return x;
    const double z = (x - to_double(mean[c])) * to_double(rstd[c]) * to_double(weight[c]) + to_double(bias[c]);
    if (std::isnan(z)) return z;
    if (act == Activation::kRelu) return std::max(z, 0.0);
    if (act == Activation::kRelu6) return std::min(std::max(z, 0.0), 6.0);
    if (act == Activation::kSigmoid) return 1.0 / (1.0 + std::exp(-z));
    return z;
  }
  // d z / d (argument of the activation), from z.
  double slope(double z) const {
    if (act == Activation::kRelu) return z > 0.0 ? 1.0 : 0.0;
    if (act == Activation::kRelu6) return z > 0.0 && z < 6.0 ? 1.0 : 0.0;
    if (act == Activation::kSigmoid) return z * (1.0 - z);
    return 1.0;
  }
};

// The same on the device.
struct DeviceNorm {
  Activation act;
  bool used;
  DeviceArray<float> mean, rstd, weight, bias;

  explicit DeviceNorm(const Norm& n)
      : act(n.act), used(!n.rstd.empty()), mean(n.mean), rstd(n.rstd), weight(n.weight), bias(n.bias) {}
  BatchNormInput input() const {
    if (!used) return {};
    return {act, mean.data(), rstd.data(), weight.data(), bias.data()};
  }
};

struct Gradients {
  std::vector<double> y, dx, dweight;
};

// The formulas of the header, tap by tap.
template <class T>
Gradients reference(const DepthwiseShape& s, const Norm& norm, const std::vector<T>& x,
                    const std::vector<float>& weight, const std::vector<T>& dy) {
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
              const double z = norm(to_double(x[i]), static_cast<size_t>(c));
              g.y[o] += z * to_double(weight[k]);
              g.dx[i] += to_double(dy[o]) * to_double(weight[k]) * (norm.rstd.empty() ? 1.0 : norm.slope(z));
              g.dweight[k] += to_double(dy[o]) * z;
            }
          }
        }
      }
    }
  }
  return g;
}

// Mean and biased variance per channel of a map.
template <class T>
std::vector<double> moments_of(const std::vector<T>& y, int64_t channels) {
  const auto C = static_cast<size_t>(channels);
  const double n = static_cast<double>(y.size() / C);
  std::vector<double> moments(2 * C, 0.0);
  for (size_t i = 0; i < y.size(); ++i) moments[i % C] += to_double(y[i]) / n;
  for (size_t i = 0; i < y.size(); ++i) moments[C + i % C] += std::pow(to_double(y[i]) - moments[i % C], 2) / n;
  return moments;
}

// Sums over the rows of dx and of dx * (x - mean), per channel.
template <class T>
std::vector<double> sums_of(const std::vector<T>& dx, const std::vector<T>& x, const std::vector<float>& mean) {
  const size_t C = mean.size();
  std::vector<double> sums(2 * C, 0.0);
  for (size_t i = 0; i < dx.size(); ++i) {
    sums[i % C] += to_double(dx[i]);
    sums[C + i % C] += to_double(dx[i]) * (to_double(x[i]) - to_double(mean[i % C]));
  }
  return sums;
}

template <class T>
void expect_moments(const std::vector<T>& y, const std::vector<float>& moments, double sum_tolerance) {
  const size_t C = moments.size() / 2;
  const auto of_y = moments_of(y, static_cast<int>(C));
  // Differences to a value of y reach the most that two of them differ, which bounds what is lost.
  double most = 0;
  for (size_t i = 0; i < y.size(); ++i) most = std::max(most, 2 * std::abs(to_double(y[i]) - of_y[i % C]));
  for (size_t c = 0; c < C; ++c) {
    EXPECT_NEAR(to_double(moments[c]), of_y[c], sum_tolerance * (most + std::abs(of_y[c]))) << "channel " << c;
    EXPECT_NEAR(to_double(moments[C + c]), of_y[C + c], sum_tolerance * most * most) << "channel " << c;
  }
}

// All passes on both sides against the formulas. The moments, and the sums of dx, are those of the map that was
// stored, whatever its rounding.
template <class T>
void expect_matches(const DepthwiseShape& s, const Norm& norm, bool with_moments) {
  SCOPED_TRACE(::testing::Message() << s.N << "x" << s.H << "x" << s.W << "x" << s.C << " stride " << s.stride
                                    << " dilation " << s.dilation << " padding " << s.pad_top << ", " << s.pad_left
                                    << " kernel " << s.kernel << " norm " << !norm.rstd.empty() << " activation "
                                    << static_cast<int>(norm.act) << " moments " << with_moments);
  const auto C = static_cast<size_t>(s.C);
  const auto x = random_values<T>(static_cast<size_t>(s.N * s.H * s.W * s.C), 1, -1.0f, 2.0f);
  const auto weight = random_values<float>(static_cast<size_t>(s.kernel * s.kernel * s.C), 2);
  const auto dy = random_values<T>(static_cast<size_t>(s.N * s.P() * s.Q() * s.C), 3, -2.0f, 1.0f);
  const Gradients expected = reference(s, norm, x, weight, dy);
  const double map_tolerance = tolerance<T>(s.kernel * s.kernel), sum_tolerance = tolerance<float>(s.N * s.P() * s.Q());

  const bool with_sums = !norm.rstd.empty();
  const auto expect_gradients = [&](const std::vector<T>& dx, const std::vector<float>& dweight,
                                    const std::vector<float>& sums) {
    // The CPU rounds dx before and after a slope that is not 0 or 1.
    const int roundings = norm.act == Activation::kSigmoid ? 2 : 1;
    EXPECT_LE(max_relative_error(dx, expected.dx), roundings * map_tolerance);
    EXPECT_LE(max_relative_error(dweight, expected.dweight), sum_tolerance);
    if (with_sums) {
      EXPECT_LE(max_relative_error(sums, sums_of(dx, x, norm.mean)), tolerance<float>(s.N * s.H * s.W));
    }
  };

  auto y = nan_values<T>(dy.size()), dx = nan_values<T>(x.size());
  auto dweight = nan_values<float>(weight.size()), moments = nan_values<float>(2 * C), sums = moments;
  cpu::depthwise_conv2d(cpu_stream(), s, norm.on_host(), x.data(), weight.data(), y.data(),
                        with_moments ? moments.data() : nullptr);
  cpu::depthwise_conv2d_grad(cpu_stream(), s, norm.on_host(), x.data(), dy.data(), weight.data(), dx.data(),
                             dweight.data(), with_sums ? sums.data() : nullptr);
  EXPECT_LE(max_relative_error(y, expected.y), map_tolerance);
  expect_gradients(dx, dweight, sums);
  if (with_moments) expect_moments(y, moments, sum_tolerance);

  for_each_schedule([&] {
    const DeviceNorm device_norm(norm);
    const DeviceArray<T> device_x(x), device_dy(dy);
    const DeviceArray<float> device_weight(weight);
    DeviceArray<T> device_y(dy.size()), device_dx(x.size());
    DeviceArray<float> device_dweight(weight.size()), device_moments(2 * C), device_sums(2 * C);
    cuda::depthwise_conv2d(cuda_stream(), s, device_norm.input(), device_x.data(), device_weight.data(),
                           device_y.data(), with_moments ? device_moments.data() : nullptr);
    cuda::depthwise_conv2d_grad(cuda_stream(), s, device_norm.input(), device_x.data(), device_dy.data(),
                                device_weight.data(), device_dx.data(), device_dweight.data(),
                                with_sums ? device_sums.data() : nullptr);
    EXPECT_LE(max_relative_error(device_y.host(), expected.y), map_tolerance);
    expect_gradients(device_dx.host(), device_dweight.host(), device_sums.host());
    if (with_moments) expect_moments(device_y.host(), device_moments.host(), sum_tolerance);
  });
}

TYPED_TEST(DepthwiseConv2dKernel, MatchesTheFormulas) {
  for (const DepthwiseShape& s : kShapes) expect_matches<TypeParam>(s, {}, false);
}

// Every activation meets every stride, dilation and kernel over the shapes.
TYPED_TEST(DepthwiseConv2dKernel, BatchNormBeforeAndMomentsAfter) {
  constexpr Activation kActivations[] = {Activation::kRelu6, Activation::kNone, Activation::kRelu,
                                         Activation::kSigmoid};
  size_t i = 0;
  for (const DepthwiseShape& s : kShapes) {
    expect_matches<TypeParam>(s, Norm::random(kActivations[i % 4], s.C), true);
    expect_matches<TypeParam>(s, Norm::random(kActivations[(i + 1) % 4], s.C), false);
    expect_matches<TypeParam>(s, {}, true);
    ++i;
  }
}

// Several strips a row, whole and cut off, in every phase of a dilation; several chunks of strips per slab, which do
// not divide evenly.
TYPED_TEST(DepthwiseConv2dKernel, ManyStripsAndChunks) {
  for (const DepthwiseShape& s : {DepthwiseShape{2, 21, 37, 40, 1, 2, 2, 2, 3},
                                  {1, 21, 37, 40, 1, 1, 1, 2, 5},
                                  {1, 40, 43, 8, 1, 4, 4, 4, 3},
                                  {1, 50, 90, 3, 2, 1, 1, 1, 3}}) {
    expect_matches<TypeParam>(s, Norm::random(Activation::kRelu6, s.C), true);
  }
}

// One gradient alone is the same as with the other.
TYPED_TEST(DepthwiseConv2dKernel, OneGradientAlone) {
  using T = TypeParam;
  for (const DepthwiseShape& s : {DepthwiseShape{2, 5, 9, 20, 1, 2, 2, 2, 3}, {1, 7, 9, 17, 2, 1, 1, 1, 5}}) {
    const Norm norm = Norm::random(Activation::kRelu6, s.C);
    const auto C = static_cast<size_t>(s.C);
    const auto x = random_values<T>(static_cast<size_t>(s.N * s.H * s.W) * C, 1, -1.0f, 2.0f);
    const auto weight = random_values<float>(static_cast<size_t>(s.kernel * s.kernel) * C, 2);
    const auto dy = random_values<T>(static_cast<size_t>(s.N * s.P() * s.Q()) * C, 3);
    const Gradients expected = reference(s, norm, x, weight, dy);
    const double sum_tolerance = tolerance<float>(s.N * s.P() * s.Q());

    auto dx = nan_values<T>(x.size());
    auto dweight = nan_values<float>(weight.size()), sums = nan_values<float>(2 * C);
    cpu::depthwise_conv2d_grad<T>(cpu_stream(), s, norm.on_host(), x.data(), dy.data(), weight.data(), nullptr,
                                  dweight.data(), nullptr);
    EXPECT_LE(max_relative_error(dweight, expected.dweight), sum_tolerance);
    cpu::depthwise_conv2d_grad<T>(cpu_stream(), s, norm.on_host(), x.data(), dy.data(), weight.data(), dx.data(),
                                  nullptr, sums.data());
    EXPECT_LE(max_relative_error(dx, expected.dx), tolerance<T>(s.kernel * s.kernel));
    EXPECT_LE(max_relative_error(sums, sums_of(dx, x, norm.mean)), tolerance<float>(s.N * s.H * s.W));
    for_each_schedule([&] {
      const DeviceNorm device_norm(norm);
      const DeviceArray<T> device_x(x), device_dy(dy);
      const DeviceArray<float> device_weight(weight);
      DeviceArray<T> device_dx(x.size());
      DeviceArray<float> device_dweight(weight.size()), device_sums(2 * C);
      cuda::depthwise_conv2d_grad<T>(cuda_stream(), s, device_norm.input(), device_x.data(), device_dy.data(),
                                     device_weight.data(), nullptr, device_dweight.data(), nullptr);
      EXPECT_LE(max_relative_error(device_dweight.host(), expected.dweight), sum_tolerance);
      cuda::depthwise_conv2d_grad<T>(cuda_stream(), s, device_norm.input(), device_x.data(), device_dy.data(),
                                     device_weight.data(), device_dx.data(), nullptr, device_sums.data());
      EXPECT_LE(max_relative_error(device_dx.host(), expected.dx), tolerance<T>(s.kernel * s.kernel));
      EXPECT_LE(max_relative_error(device_sums.host(), sums_of(device_dx.host(), x, norm.mean)),
                tolerance<float>(s.N * s.H * s.W));
    });
  }
}

// The variance is exact however far the mean is from zero: here 1000 standard deviations.
TYPED_TEST(DepthwiseConv2dKernel, MomentsDoNotCancel) {
  using T = TypeParam;
  constexpr bool kHalf = std::is_same_v<T, bf16>;  // values 4 apart, of which few are not 576
  for (const DepthwiseShape& s : {DepthwiseShape{1, 24, 40, 8, 1, 1, 1, 1, 3},
                                  {2, 21, 37, 40, 1, 2, 2, 2, 3},
                                  {1, 40, 43, 33, 1, 4, 4, 4, 3},
                                  {1, 21, 37, 40, 1, 1, 2, 2, 5},
                                  {1, 60, 90, 3, 2, 1, 1, 1, 3}}) {
    const auto C = static_cast<size_t>(s.C), centre = static_cast<size_t>(s.kernel * s.kernel / 2);
    SCOPED_TRACE(::testing::Message() << s.C << " channels, stride " << s.stride << ", kernel " << s.kernel);
    const auto x =
        random_values<T>(static_cast<size_t>(s.N * s.H * s.W) * C, 1, kHalf ? 574.1f : 575.0f, kHalf ? 578.1f : 577.0f);
    std::vector<float> weight(static_cast<size_t>(s.kernel * s.kernel) * C, 0.0f);
    for (size_t c = 0; c < C; ++c) weight[centre * C + c] = 1.0f;  // y = x, or every other row and column of it
    const auto expect_near = [&](const std::vector<T>& y, const std::vector<float>& moments) {
      const auto expected = moments_of(y, s.C);
      for (size_t c = 0; c < C; ++c) {
        const double var = expected[C + c];
        EXPECT_GT(expected[c], 700 * std::sqrt(var));
        EXPECT_NEAR(to_double(moments[c]), expected[c], 1e-6 * std::sqrt(var) + 576 * 0x1p-24) << "channel " << c;
        EXPECT_NEAR(to_double(moments[C + c]), var, 1e-5 * var) << "channel " << c;
      }
    };
    auto y = nan_values<T>(static_cast<size_t>(s.N * s.P() * s.Q()) * C);
    auto moments = nan_values<float>(2 * C);
    cpu::depthwise_conv2d(cpu_stream(), s, {}, x.data(), weight.data(), y.data(), moments.data());
    expect_near(y, moments);
    for_each_schedule([&] {
      const DeviceArray<T> device_x(x);
      const DeviceArray<float> device_weight(weight);
      DeviceArray<T> device_y(y.size());
      DeviceArray<float> device_moments(2 * C);
      cuda::depthwise_conv2d(cuda_stream(), s, {}, device_x.data(), device_weight.data(), device_y.data(),
                             device_moments.data());
      expect_near(device_y.host(), device_moments.host());
    });
  }
}

// A NaN is not lost in the clamp of the activation.
TYPED_TEST(DepthwiseConv2dKernel, NanPassesTheActivation) {
  using T = TypeParam;
  const DepthwiseShape s{1, 4, 5, 8, 1, 1, 1, 1, 3};
  const Norm norm = Norm::random(Activation::kRelu6, s.C);
  auto x = random_values<T>(static_cast<size_t>(s.H * s.W * s.C), 1);
  x[static_cast<size_t>(7 * s.C)] = nan_values<T>(1)[0];
  const auto weight = random_values<float>(static_cast<size_t>(9 * s.C), 2, 0.5f, 1.0f);
  const auto expected = reference(s, norm, x, weight, x).y;
  const auto is_nan = [](double v) { return std::isnan(v); };
  EXPECT_GT(std::ranges::count_if(expected, is_nan), 0);
  auto y = nan_values<T>(x.size());
  cpu::depthwise_conv2d(cpu_stream(), s, norm.on_host(), x.data(), weight.data(), y.data(), nullptr);
  EXPECT_LE(max_relative_error(y, expected), tolerance<T>(9));
  for_each_schedule([&] {
    const DeviceNorm device_norm(norm);
    const DeviceArray<T> device_x(x);
    const DeviceArray<float> device_weight(weight);
    DeviceArray<T> device_y(x.size());
    cuda::depthwise_conv2d(cuda_stream(), s, device_norm.input(), device_x.data(), device_weight.data(),
                           device_y.data(), nullptr);
    EXPECT_LE(max_relative_error(device_y.host(), expected), tolerance<T>(9));
  });
}

}  // namespace
}  // namespace depthstill
