// cuda::conv2d and its relatives as on a GPU, with every plan that the simulated libraries offer, against direct sums
// in double: strides, dilations and paddings that differ from side to side, and numbers that TF32 cannot hold.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/bias_activation.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/simt/libraries/simulation.h"
#include "tests/kernels/conv2d_reference.h"
#include "tests/kernels/kernel_test.h"
#include "tests/libraries/candidates.h"

namespace depthstill {
namespace {

using namespace kernel_test;
using test::for_each_candidate, test::strict_options, test::WithOptions;

size_t index(int64_t i) { return static_cast<size_t>(i); }

std::string describe(const Conv2dShape& s) {
  return concat_text("(", s.N, ", ", s.H, ", ", s.W, ", ", s.C, "), ", s.O, " filters ", s.R, " x ", s.S, ", stride ",
                     s.stride, ", dilation ", s.dilation, ", padding ", s.pad_top, " ", s.pad_bottom, " ", s.pad_left,
                     " ", s.pad_right);
}

const Conv2dShape kShapes[] = {
    {.N = 2,
     .H = 7,
     .W = 9,
     .C = 8,
     .O = 16,
     .R = 3,
     .S = 3,
     .pad_top = 0,
     .pad_bottom = 1,
     .pad_left = 1,
     .pad_right = 1},
    {.N = 1, .H = 9, .W = 7, .C = 5, .O = 3, .R = 3, .S = 2, .stride = 2, .pad_top = 1, .pad_bottom = 2, .pad_left = 2},
    {.N = 2,
     .H = 8,
     .W = 11,
     .C = 16,
     .O = 8,
     .R = 2,
     .S = 3,
     .dilation = 2,
     .pad_top = 2,
     .pad_left = 1,
     .pad_right = 3},
    {.N = 1, .H = 6, .W = 10, .C = 24, .O = 40, .R = 1, .S = 1},  // a product of cuBLASLt as well
    {.N = 2, .H = 5, .W = 8, .C = 3, .O = 1, .R = 1, .S = 1, .stride = 2},
};

constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid};

// Parameters are rounded to T by the code under test, so they are given as T can hold them.
template <class T>
std::vector<float> parameter(int64_t n, uint32_t seed, float low, float high) {
  std::vector<float> values;
  for (const T v : random_values<T>(index(n), seed, low, high)) values.push_back(static_cast<float>(v));
  return values;
}

template <class T>
class Convolutions : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(Convolutions, Types);

// bf16 results are rounded once by the convolution and once more by a kernel behind it.
template <class T>
double twice_rounded(int64_t terms) {
  return 2 * tolerance<T>(terms);
}

TYPED_TEST(Convolutions, Forward) {
  using T = TypeParam;
  for (const Conv2dShape& s : kShapes) {
    SCOPED_TRACE(describe(s));
    const auto x = random_values<T>(index(s.N * s.H * s.W * s.C), 1, -1.0f, 1.5f);
    const auto weight = parameter<T>(s.O * s.R * s.S * s.C, 2, -1.0f, 1.0f), bias = parameter<T>(s.O, 3, -2.0f, 4.0f);
    std::vector<double> sums(index(s.N * s.P() * s.Q() * s.O));
    for_each_product(s, [&](size_t i, size_t j, size_t k) { sums[k] += to_double(x[i]) * to_double(weight[j]); });
    const DeviceArray<T> x_device(x);
    const DeviceArray<float> weight_device(weight), bias_device(bias);
    for (const Activation act : kActivations) {
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(act) << (with_bias ? ", bias" : ""));
        std::vector<double> expected = sums;
        for (size_t k = 0; k < expected.size(); ++k)
          expected[k] = activated(act, sums[k] + (with_bias ? to_double(bias[k % bias.size()]) : 0.0));
        for_each_candidate(strict_options(), [&] {
          DeviceArray<T> y(expected.size());
          cuda::conv2d(cuda_stream(), s, act, x_device.data(), weight_device.data(),
                       with_bias ? bias_device.data() : nullptr, y.data());
          EXPECT_LE(max_relative_error(y.host(), expected), twice_rounded<T>(s.R * s.S * s.C));
        });
      }
    }
  }
}

TYPED_TEST(Convolutions, Gradients) {
  using T = TypeParam;
  for (const Conv2dShape& s : kShapes) {
    for (const Activation act : {Activation::kNone, Activation::kRelu6}) {
      SCOPED_TRACE(describe(s) + (act == Activation::kNone ? "" : ", relu6"));
      const auto x = random_values<T>(index(s.N * s.H * s.W * s.C), 1, -1.0f, 1.5f);
      const auto weight = parameter<T>(s.O * s.R * s.S * s.C, 2, -1.0f, 1.0f);
      const int64_t outputs = s.N * s.P() * s.Q() * s.O;
      const auto y = random_values<T>(index(outputs), 3, -4.0f, 8.0f), dy = random_values<T>(index(outputs), 4);
      std::vector<double> dz(index(outputs)), dx(x.size()), dweight(weight.size()), dbias(index(s.O));
      for (size_t k = 0; k < dz.size(); ++k) {
        dz[k] = to_double(dy[k]) * slope(act, to_double(y[k]));
        dbias[k % dbias.size()] += dz[k];
      }
      for_each_product(s, [&](size_t i, size_t j, size_t k) {
        dx[i] += dz[k] * to_double(weight[j]);
        dweight[j] += dz[k] * to_double(x[i]);
      });
      const DeviceArray<T> x_device(x), y_device(y);
      const DeviceArray<float> weight_device(weight);
      for (const bool with_bias : {false, true}) {
        for_each_candidate(strict_options(), [&] {
          DeviceArray<T> dy_device(dy), to_dx(x.size());
          DeviceArray<float> to_dweight(weight.size()), to_dbias(dbias.size());
          cuda::conv2d_grad(cuda_stream(), s, act, x_device.data(), weight_device.data(), y_device.data(),
                            dy_device.data(), {to_dx.data(), to_dweight.data(), with_bias ? to_dbias.data() : nullptr});
          EXPECT_LE(max_relative_error(to_dx.host(), dx), tolerance<T>(s.R * s.S * s.O)) << "dx";
          EXPECT_LE(max_relative_error(to_dweight.host(), dweight), tolerance<T>(outputs / s.O)) << "dweight";
          if (with_bias) {
            EXPECT_LE(max_relative_error(to_dbias.host(), dbias), tolerance<float>(outputs / s.O)) << "dbias";
          }
        });
      }
    }
  }
}

TYPED_TEST(Convolutions, GradientsThatGoOnBelowTheActivation) {
  using T = TypeParam;
  for (const Conv2dShape& s : kShapes) {
    const auto dy = random_values<T>(index(s.N * s.P() * s.Q() * s.O), 4);
    const auto weight = parameter<T>(s.O * s.R * s.S * s.C, 2, -1.0f, 1.0f);
    const DeviceArray<float> weight_device(weight);
    for (const Activation below : {Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
      auto x = random_values<T>(index(s.N * s.H * s.W * s.C), 1, -4.0f, 8.0f);
      for (T& v : x) v = static_cast<T>(static_cast<float>(activated(below, to_double(v))));
      std::vector<double> du(x.size()), sums(index(s.C)), magnitudes(index(s.C));
      for_each_product(s, [&](size_t i, size_t j, size_t k) { du[i] += to_double(dy[k]) * to_double(weight[j]); });
      for (size_t i = 0; i < du.size(); ++i) {
        du[i] *= slope(below, to_double(x[i]));
        sums[i % sums.size()] += du[i];
      }
      const DeviceArray<T> x_device(x);
      for (const bool with_sums : {false, true}) {
        SCOPED_TRACE(describe(s) + concat_text(", activation ", static_cast<int>(below), with_sums ? ", sums" : ""));
        for_each_candidate(strict_options(), [&] {
          DeviceArray<T> dy_device(dy), to_du(x.size());
          DeviceArray<float> to_sums(sums.size());
          cuda::conv2d_grad<T>(
              cuda_stream(), s, Activation::kNone, x_device.data(), weight_device.data(), nullptr, dy_device.data(),
              {.dx = to_du.data(), .below = below, .dbias_below = with_sums ? to_sums.data() : nullptr});
          EXPECT_LE(max_relative_error(to_du.host(), du), twice_rounded<T>(s.R * s.S * s.O)) << "du";
          // The terms of the sums are rounded, each by up to 2^-8 of about a tenth of the largest sum.
          if (with_sums) {
            EXPECT_LE(max_relative_error(to_sums.host(), sums), 4 * tolerance<T>(s.N * s.H * s.W)) << "sums";
          }
        });
      }
    }
  }
}

// Maps that are large enough for cuDNN to be asked to fuse the batch norms, without and with padding.
const Conv2dShape kChain[] = {
    {.N = 4, .H = 96, .W = 160, .C = 64, .O = 48, .R = 1, .S = 1},
    {.N = 2, .H = 200, .W = 330, .C = 8, .O = 64, .R = 3, .S = 1, .pad_top = 1, .pad_bottom = 1},
};

template <class T>
struct ChainReference {
  std::vector<double> y, mean, variance;
};
template <class T>
ChainReference<T> chain_reference(const Conv2dShape& s, const std::vector<double>& z,
                                  const std::vector<float>& weight) {
  ChainReference<T> r{std::vector<double>(index(s.N * s.P() * s.Q() * s.O)), std::vector<double>(index(s.O)),
                      std::vector<double>(index(s.O))};
  for_each_product(s, [&](size_t i, size_t j, size_t k) { r.y[k] += z[i] * to_double(weight[j]); });
  const auto channels = index(s.O);
  const size_t pixels = r.y.size() / channels;
  const auto rows = static_cast<double>(pixels);
  for (size_t k = 0; k < r.y.size(); ++k) r.mean[k % channels] += r.y[k] / rows;
  for (size_t k = 0; k < r.y.size(); ++k)
    r.variance[k % channels] += (r.y[k] - r.mean[k % channels]) * (r.y[k] - r.mean[k % channels]) / rows;
  return r;
}

TYPED_TEST(Convolutions, BetweenBatchNorms) {
  using T = TypeParam;
  for (const Conv2dShape& s : kChain) {
    SCOPED_TRACE(describe(s));
    const auto x = random_values<T>(index(s.N * s.H * s.W * s.C), 1, -1.0f, 3.0f);
    const auto weight = parameter<T>(s.O * s.R * s.S * s.C, 2, -0.03f, 0.04f);
    const auto mean = random_values<float>(index(s.C), 3, 0.5f, 1.0f),
               rstd = random_values<float>(index(s.C), 4, 0.7f, 2.0f);
    const auto scale = random_values<float>(index(s.C), 5, 0.5f, 2.0f), shift = random_values<float>(index(s.C), 6);
    std::vector<double> z(x.size());
    for (size_t i = 0; i < z.size(); ++i) {
      const size_t c = i % mean.size();
      const double normed = (to_double(x[i]) - to_double(mean[c])) * to_double(rstd[c]) * to_double(scale[c]);
      const double value = activated(Activation::kRelu6, normed + to_double(shift[c]));
      z[i] = to_double(static_cast<T>(static_cast<float>(value)));
    }
    const ChainReference<T> expected = chain_reference<T>(s, z, weight);
    // The guess is near enough for the sums to be good, and for sums that are mistaken for each other to pass as good.
    std::vector<float> guess;
    for (const double m : expected.mean) guess.push_back(static_cast<float>(m) - 0.25f);

    const DeviceArray<T> x_device(x);
    const DeviceArray<float> weight_device(weight), mean_device(mean), rstd_device(rstd), scale_device(scale),
        shift_device(shift), guess_device(guess);
    const BatchNormInput norm{.act = Activation::kRelu6,
                              .mean = mean_device.data(),
                              .rstd = rstd_device.data(),
                              .weight = scale_device.data(),
                              .bias = shift_device.data()};
    for_each_candidate(strict_options(), [&] {
      DeviceArray<T> to_z(x.size()), y(expected.y.size());
      DeviceArray<float> moments(2 * guess.size());
      cuda::batch_norm_conv2d(cuda_stream(), s, norm, x_device.data(), weight_device.data(), guess_device.data(),
                              to_z.data(), y.data(), moments.data());
      EXPECT_LE(max_relative_error(y.host(), expected.y), 2 * tolerance<T>(s.R * s.S * s.C));
      const std::vector<float> found = moments.host();
      const auto half = found.begin() + static_cast<std::ptrdiff_t>(guess.size());
      EXPECT_LE(max_relative_error(std::vector<float>(found.begin(), half), expected.mean), 1e-3) << "mean";
      EXPECT_LE(max_relative_error(std::vector<float>(half, found.end()), expected.variance), 5e-3) << "variance";
    });
  }
}

TEST(ConvolutionOptions, StrictKeepsTensorCoresAway) {
  const Conv2dShape& s = kShapes[0];
  const auto x = random_values<float>(index(s.N * s.H * s.W * s.C), 1),
             weight = random_values<float>(index(s.O * 9 * s.C), 2);
  std::vector<double> y(index(s.N * s.P() * s.Q() * s.O));
  for_each_product(s, [&](size_t i, size_t j, size_t k) { y[k] += to_double(x[i]) * to_double(weight[j]); });
  const DeviceArray<float> x_device(x), weight_device(weight);
  const auto largest_error = [&](const LibraryOptions& options) {
    double largest = 0.0;
    for_each_candidate(options, [&] {
      DeviceArray<float> to_y(y.size());
      cuda::conv2d<float>(cuda_stream(), s, Activation::kNone, x_device.data(), weight_device.data(), nullptr,
                          to_y.data());
      largest = std::max(largest, max_relative_error(to_y.host(), y));
    });
    return largest;
  };
  LibraryOptions options = strict_options();
  EXPECT_LE(largest_error(options), tolerance<float>(9 * s.C));
  options.strict_fp32 = false;
  EXPECT_GT(largest_error(options), 1e-5) << "tensor cores round to ten bits";
  EXPECT_LE(largest_error(options), 1e-2);
}

TEST(ConvolutionOptions, DeterministicRepeatsItsBits) {
  const Conv2dShape& s = kShapes[0];
  const auto x = random_values<float>(index(s.N * s.H * s.W * s.C), 1);
  const DeviceArray<float> x_device(x), weight(random_values<float>(index(s.O * 9 * s.C), 2));
  const auto repeats = [&](const LibraryOptions& options) {
    bool same = true;
    for_each_candidate(options, [&] {
      std::vector<std::vector<float>> results;
      for (int run = 0; run < 3; ++run) {
        DeviceArray<float> y(index(s.N * s.P() * s.Q() * s.O));
        cuda::conv2d<float>(cuda_stream(), s, Activation::kNone, x_device.data(), weight.data(), nullptr, y.data());
        results.push_back(y.host());
      }
      same = same && results[0] == results[1] && results[1] == results[2];
    });
    return same;
  };
  LibraryOptions options = strict_options();
  EXPECT_FALSE(repeats(options)) << "an engine that is not deterministic should have shown";
  options.deterministic = true;
  EXPECT_TRUE(repeats(options));
}

// Without a clock the first way that runs is taken, and the work is done once.
TEST(ConvolutionOptions, AWayThatDoesNotRunIsLeftOut) {
  Conv2dShape s = kShapes[0];
  const auto x = random_values<float>(index(s.N * s.H * s.W * s.C), 1),
             weight = random_values<float>(index(s.O * 9 * s.C), 2);
  const DeviceArray<float> x_device(x), weight_device(weight);
  std::vector<std::vector<float>> results;
  for (const int failures : {0, 1, 3}) {
    LibraryOptions options = strict_options();
    options.workspace_cap_bytes = (64 << 20) + failures;  // a problem that is not known yet
    const WithOptions with(options);
    DeviceArray<float> y(index(s.N * s.P() * s.Q() * s.O));
    simt::fail_next_executions(failures);
    cuda::conv2d<float>(cuda_stream(), s, Activation::kRelu, x_device.data(), weight_device.data(), nullptr, y.data());
    simt::fail_next_executions(0);
    results.push_back(y.host());
    EXPECT_LE(max_relative_error(results.back(), results.front()), 1e-6) << failures << " failures";
  }
  LibraryOptions options = strict_options();
  options.workspace_cap_bytes = (64 << 20) + 100;
  const WithOptions with(options);
  DeviceArray<float> y(results[0].size());
  simt::fail_next_executions(1000);
  EXPECT_THROW(cuda::conv2d<float>(cuda_stream(), s, Activation::kRelu, x_device.data(), weight_device.data(), nullptr,
                                   y.data()),
               Error);
  simt::fail_next_executions(0);
}

}  // namespace
}  // namespace depthstill
