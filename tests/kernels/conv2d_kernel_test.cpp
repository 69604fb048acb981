// Convolutions on the CPU against direct sums in double, for every implementation that this processor can run. With
// bf16 images the weights are representable in bf16, too, so that only the rounding of the results differs between the
// paths.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_dnn.h"
#include "kernels/conv2d/conv2d_tiles.h"
#include "kernels/core/parallel.h"
#include "tests/kernels/conv2d_reference.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
struct Case {
  Conv2dShape shape;
  std::vector<T> x, y, dy;
  std::vector<float> weight, bias;

  explicit Case(const Conv2dShape& s) : shape(s) {
    x = random_values<T>(static_cast<size_t>(s.N * s.H * s.W * s.C), 1, -1.0f, 1.5f);
    dy = random_values<T>(static_cast<size_t>(s.N * s.P() * s.Q() * s.O), 2, -1.5f, 1.0f);
    for (const T w : random_values<T>(static_cast<size_t>(s.O * s.R * s.S * s.C), 3)) {
      weight.push_back(static_cast<float>(w));
    }
    bias = random_values<float>(static_cast<size_t>(s.O), 4, -2.0f, 2.0f);
    y = nan_values<T>(dy.size());
  }
};

template <class T>
std::vector<double> expected_y(const Case<T>& c, Activation act, bool with_bias) {
  std::vector<double> y(c.dy.size());
  for_each_product(c.shape, [&](size_t x, size_t w, size_t o) { y[o] += to_double(c.x[x]) * to_double(c.weight[w]); });
  for (size_t i = 0; i < y.size(); ++i) {
    const double bias = with_bias ? to_double(c.bias[i % c.bias.size()]) : 0;
    y[i] = activated(act, y[i] + bias);
  }
  return y;
}

struct ExpectedGradients {
  std::vector<double> dx, dweight, dbias;
};

template <class T>
ExpectedGradients expected_gradients(const Case<T>& c, const std::vector<T>& dz) {
  ExpectedGradients e{std::vector<double>(c.x.size()), std::vector<double>(c.weight.size()),
                      std::vector<double>(c.bias.size())};
  for_each_product(c.shape, [&](size_t x, size_t w, size_t y) {
    e.dx[x] += to_double(dz[y]) * to_double(c.weight[w]);
    e.dweight[w] += to_double(dz[y]) * to_double(c.x[x]);
  });
  for (size_t i = 0; i < dz.size(); ++i) e.dbias[i % c.bias.size()] += to_double(dz[i]);
  return e;
}

// One way to run a convolution and the gradients without activation and bias.
template <class T>
struct Path {
  std::string name;
  std::function<void(const Case<T>&, std::vector<T>& y)> forward;
  std::function<void(const Case<T>&, std::vector<T>& dx, std::vector<float>& dweight)> gradients;
};

template <class T>
Path<T> tiled(const cpu::TileKernels* k) {
  return {std::string("tiles, ") + k->name,
          [k](const Case<T>& c, std::vector<T>& y) {
            cpu::tiled_forward(*k, cpu_stream(), c.shape, Activation::kNone, c.x.data(), c.weight.data(), nullptr,
                               y.data());
          },
          [k](const Case<T>& c, std::vector<T>& dx, std::vector<float>& dweight) {
            cpu::tiled_grad_data(*k, cpu_stream(), c.shape, c.dy.data(), c.weight.data(), dx.data());
            cpu::tiled_grad_weight(*k, cpu_stream(), c.shape, c.x.data(), c.dy.data(), dweight.data());
          }};
}

template <class T>
std::vector<Path<T>> paths() {
  std::vector<Path<T>> all;
  all.push_back({"onednn",
                 [](const Case<T>& c, std::vector<T>& y) {
                   cpu::dnn_forward(cpu_stream(), c.shape, c.x.data(), c.weight.data(), nullptr, y.data());
                 },
                 [](const Case<T>& c, std::vector<T>& dx, std::vector<float>& dweight) {
                   cpu::dnn_grad_data(cpu_stream(), c.shape, c.dy.data(), c.weight.data(), dx.data());
                   cpu::dnn_grad_weight(cpu_stream(), c.shape, c.x.data(), c.dy.data(), dweight.data());
                 }});
  std::vector<const cpu::TileKernels*> kernels = {cpu::avx2_kernels<T>(), cpu::avx512_kernels<T>(),
                                                  cpu::amx_kernels<T>()};
  if constexpr (std::is_same_v<T, bf16>) {
    kernels.push_back(cpu::avx512_bf16_kernels());
    kernels.push_back(cpu::avx512_bf16_stand_in());
  }
  for (const cpu::TileKernels* k : kernels) {
    if (k) all.push_back(tiled<T>(k));
  }
  return all;
}

// {N, H, W, C}, {O, R, S}, stride, dilation, {top, bottom, left, right}
const Conv2dShape kShapes[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {2, 5, 7, 3, 8, 3, 3, 1, 1, 1, 1, 1, 1},
    {2, 9, 13, 3, 32, 3, 3, 2, 1, 1, 1, 1, 1},   // the encoder's stem
    {1, 8, 10, 16, 24, 3, 3, 2, 1, 0, 1, 0, 1},  // stride 2, TensorFlow's padding
    {2, 6, 9, 17, 24, 3, 3, 1, 1, 1, 1, 1, 1},   // one past a vector
    {1, 7, 35, 33, 33, 3, 3, 1, 1, 1, 1, 1, 1},  // one past a line and a pair of tiles
    {2, 11, 6, 24, 17, 3, 3, 1, 2, 2, 2, 2, 2},  // dilation
    {1, 5, 19, 40, 31, 3, 3, 1, 1, 0, 1, 1, 1},  // no padding on top
    {1, 6, 8, 20, 12, 3, 3, 1, 1, 2, 0, 0, 2},   // padding wider than half the filter
    {3, 1, 37, 10, 5, 1, 3, 1, 1, 0, 0, 1, 1},   // one row
    {1, 41, 1, 9, 16, 3, 1, 1, 1, 1, 1, 0, 0},   // one column
    {2, 4, 5, 96, 257, 1, 1, 1, 1, 0, 0, 0, 0},  // the head: a matrix product
    {1, 3, 4, 257, 16, 1, 1, 1, 1, 0, 0, 0, 0},
    {1, 4, 6, 8, 8, 1, 1, 1, 1, 1, 0, 0, 1},        // 1 x 1 with padding is not
    {1, 9, 8, 12, 20, 5, 3, 1, 1, 2, 2, 1, 1},      // 5 x 3
    {1, 10, 9, 7, 6, 2, 2, 1, 1, 0, 1, 0, 1},       // even
    {1, 4, 5, 420, 40, 3, 3, 1, 1, 1, 1, 1, 1},     // channels in several passes
    {1, 3, 3, 360, 330, 3, 3, 1, 1, 1, 1, 1, 1},    // outputs in several groups, too
    {1, 3, 421, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1},      // several blocks of columns
    {2, 70, 40, 33, 18, 3, 3, 1, 1, 1, 1, 1, 1},    // several blocks of rows
    {1, 6, 6, 4, 4, 3, 3, 1, 1, 0, 0, 0, 0},        // no padding: smaller output
    {2, 10, 7, 40, 33, 1, 1, 2, 1, 0, 0, 0, 0},     // a stride, of which one phase is read
    {2, 15, 70, 33, 18, 3, 3, 2, 1, 1, 1, 1, 1},    // a stride, one past a line
    {1, 23, 21, 3, 20, 7, 7, 2, 1, 3, 3, 3, 3},     // ResNet's stem
    {1, 28, 42, 3, 24, 14, 14, 14, 1, 0, 0, 0, 0},  // patches
    {1, 13, 12, 9, 10, 2, 3, 3, 1, 1, 0, 0, 2},     // a stride that leaves rows out
    {1, 17, 19, 8, 9, 3, 5, 2, 2, 2, 2, 4, 4},      // a dilation that the stride divides
    {1, 19, 17, 8, 9, 4, 3, 4, 6, 7, 8, 6, 5},      // and one that has a divisor in common with it
    {1, 25, 21, 420, 8, 3, 3, 2, 1, 1, 0, 1, 0},    // a stride, channels in several passes, several blocks of rows
    {2, 1, 1, 5, 6, 1, 1, 2, 1, 0, 0, 0, 0},        // images of one pixel
};

std::string text(const Conv2dShape& s) {
  return concat_text("x (", s.N, ",", s.H, ",", s.W, ",", s.C, ") O ", s.O, " filter ", s.R, "x", s.S, " stride ",
                     s.stride, " dilation ", s.dilation, " pad ", s.pad_top, ",", s.pad_bottom, ",", s.pad_left, ",",
                     s.pad_right);
}

template <class T>
class Conv2dKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(Conv2dKernel, Types);

TYPED_TEST(Conv2dKernel, EveryPathMatchesDirectSums) {
  for (const Conv2dShape& shape : kShapes) {
    SCOPED_TRACE(text(shape));
    const Case<TypeParam> c(shape);
    const auto y = expected_y(c, Activation::kNone, false);
    const auto e = expected_gradients(c, c.dy);
    const int64_t per_output = shape.R * shape.S * shape.C, per_input = shape.R * shape.S * shape.O;
    for (const auto& path : paths<TypeParam>()) {
      SCOPED_TRACE(path.name);
      auto actual_y = nan_values<TypeParam>(y.size()), dx = nan_values<TypeParam>(c.x.size());
      auto dweight = nan_values<float>(c.weight.size());
      path.forward(c, actual_y);
      path.gradients(c, dx, dweight);
      EXPECT_LE(max_relative_error(actual_y, y), tolerance<TypeParam>(per_output));
      EXPECT_LE(max_relative_error(dx, e.dx), tolerance<TypeParam>(per_input));
      EXPECT_LE(max_relative_error(dweight, e.dweight), tolerance<float>(shape.N * shape.P() * shape.Q()));
    }
  }
}

// The stand-in computes what the instruction does, bit for bit; elsewhere, what Intel's manual says of it.
TEST(Conv2dBf16Pairs, TheStandInIsTheInstruction) {
  if (!cpu::avx512_bf16_kernels()) GTEST_SKIP() << "skipped: no AVX-512 BF16";
  for (const Conv2dShape& shape : kShapes) {
    SCOPED_TRACE(text(shape));
    const Case<bf16> c(shape);
    std::vector<bf16> y[2], dx[2];
    std::vector<float> dweight[2];
    for (const int i : {0, 1}) {
      const auto path = tiled<bf16>(i ? cpu::avx512_bf16_stand_in() : cpu::avx512_bf16_kernels());
      y[i] = nan_values<bf16>(c.dy.size()), dx[i] = nan_values<bf16>(c.x.size());
      dweight[i] = nan_values<float>(c.weight.size());
      path.forward(c, y[i]);
      path.gradients(c, dx[i], dweight[i]);
    }
    EXPECT_EQ(std::memcmp(y[0].data(), y[1].data(), y[0].size() * sizeof(bf16)), 0);
    EXPECT_EQ(std::memcmp(dx[0].data(), dx[1].data(), dx[0].size() * sizeof(bf16)), 0);
    EXPECT_EQ(std::memcmp(dweight[0].data(), dweight[1].data(), dweight[0].size() * sizeof(float)), 0);
  }
}

// One output of two channels: the upper half of a pair is added first, each addition rounds to nearest even, and what
// is below 2^-126 counts as zero, be it operand or result.
TEST(Conv2dBf16Pairs, RoundAndFlushAsTheManualSays) {
  struct Sum {
    float x[4], w[4], expected;  // two pairs
  };
  const float big = 0x1p24f, small = 1.0f;
  const Sum sums[] = {
      {{small, big, 0, 0}, {1, 1, 0, 0}, big},           // 2^24 + 1 rounds to even
      {{-big, big, small, 0}, {1, 1, 1, 0}, small},      // the pair cancels
      {{0, big, -big, small}, {0, 1, 1, 1}, 0.0f},       // 2^24 + 1 rounds before 2^24 is taken away
      {{0, big, small, -big}, {0, 1, 1, 1}, small},      // here it is taken away first
      {{0x1p-70f, 0, 0, 0}, {0x1p-57f, 0, 0, 0}, 0.0f},  // a result below 2^-126
      {{0x1p-60f, 0, 0, 0}, {0x1p-57f, 0, 0, 0}, 0x1p-117f},
      {{0x1p-130f, 0, 0, 0}, {0x1p60f, 0, 0, 0}, 0.0f},  // an operand below 2^-126
      {{1, 0, 0, 0}, {0x1p-127f, 0, 0, 0}, 0.0f},        // a weight below 2^-126
  };
  int tried = 0;
  for (const cpu::TileKernels* k : {cpu::avx512_bf16_kernels(), cpu::avx512_bf16_stand_in()}) {
    if (!k) continue;
    for (const Sum& sum : sums) {
      Case<bf16> c({1, 1, 1, 4, 1, 1, 1, 1, 1, 0, 0, 0, 0});
      for (size_t i = 0; i < 4; ++i) c.x[i] = bf16(sum.x[i]), c.weight[i] = sum.w[i];
      std::vector<bf16> y(1);
      tiled<bf16>(k).forward(c, y);
      EXPECT_EQ(static_cast<float>(y[0]), sum.expected) << k->name << ", sum " << &sum - sums;
      ++tried;
    }
  }
  if (tried == 0) GTEST_SKIP() << "skipped: no AVX-512";
}

// Root of the mean square error of the forward pass and of both gradients against sums in double, in units of
// 2^-24 times the root of the sum of the squares of the products.
std::array<double, 3> rounding_errors(const Path<float>& path, const Case<float>& c) {
  auto y = nan_values<float>(c.dy.size()), dx = nan_values<float>(c.x.size()), dweight = c.weight;
  path.forward(c, y);
  path.gradients(c, dx, dweight);
  std::vector<double> sums[3], squares[3];
  const std::vector<float>* actual[3] = {&y, &dx, &dweight};
  for (int i = 0; i < 3; ++i) sums[i].resize(actual[i]->size()), squares[i].resize(actual[i]->size());
  for_each_product(c.shape, [&](size_t ix, size_t iw, size_t iy) {
    const auto add = [&](int i, size_t at, double product) {
      sums[i][at] += product;
      squares[i][at] += product * product;
    };
    add(0, iy, to_double(c.x[ix]) * to_double(c.weight[iw]));
    add(1, ix, to_double(c.dy[iy]) * to_double(c.weight[iw]));
    add(2, iw, to_double(c.x[ix]) * to_double(c.dy[iy]));
  });
  std::array<double, 3> errors{};
  for (size_t i = 0; i < 3; ++i) {
    for (size_t at = 0; at < sums[i].size(); ++at) {
      const double error = (to_double((*actual[i])[at]) - sums[i][at]) / std::sqrt(squares[i][at]) * 0x1p24;
      errors[i] += error * error / static_cast<double>(sums[i].size());
    }
    errors[i] = std::sqrt(errors[i]);
  }
  return errors;
}

// Values of very different sizes in every sum, and few products, so that rounding while adding does not hide errors of
// the products.
TEST(Conv2dFloatParts, AreAsAccurateAsFp32) {
  if (!cpu::amx_kernels<float>()) GTEST_SKIP() << "skipped: no AMX";
  for (const int64_t channels : {1, 4, 96}) {
    Case<float> c({1, 4, 4, channels, 8, 1, 1, 1, 1, 0, 0, 0, 0});
    uint32_t state = 7;
    for (std::vector<float>* values : {&c.x, &c.weight, &c.dy}) {
      for (float& value : *values)
        value = std::ldexp(value, static_cast<int>((state = state * 1664525u + 1013904223u) >> 28) - 8);
    }
    const auto parts = rounding_errors(tiled<float>(cpu::amx_kernels<float>()), c);
    const auto plain = rounding_errors(tiled<float>(cpu::avx512_kernels<float>()), c);
    for (size_t i = 0; i < 3; ++i) EXPECT_LE(parts[i], 1.5 * plain[i] + 0.2) << channels << " channels, result " << i;
  }
}

TEST(Conv2dFloatParts, KeepWhatIsNotANumber) {
  if (!cpu::amx_kernels<float>()) GTEST_SKIP() << "skipped: no AMX";
  const float infinity = std::numeric_limits<float>::infinity();
  const float full_payload = std::bit_cast<float>(0xffffffffu), top = 3.38e38f, tiny = 1e-30f;
  Case<float> c({1, 1, 6, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0});
  c.x = {infinity, -infinity, full_payload, std::numeric_limits<float>::quiet_NaN(), top, tiny};
  c.weight = {0.5f};
  std::vector<float> y(6);
  tiled<float>(cpu::amx_kernels<float>()).forward(c, y);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(std::isnan(y[i])) << c.x[i] << " became " << y[i];
  EXPECT_EQ(y[4], 0.5f * top);
  EXPECT_EQ(y[5], 0.5f * tiny);
}

TYPED_TEST(Conv2dKernel, FusesBiasAndActivation) {
  using T = TypeParam;
  for (const Conv2dShape& shape : {kShapes[2], kShapes[4], kShapes[11]}) {
    for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(text(shape) + " activation " + std::to_string(static_cast<int>(act)));
        Case<T> c(shape);
        const float* bias = with_bias ? c.bias.data() : nullptr;
        cpu::conv2d(cpu_stream(), shape, act, c.x.data(), c.weight.data(), bias, c.y.data());
        EXPECT_LE(max_relative_error(c.y, expected_y(c, act, with_bias)), tolerance<T>(shape.R * shape.S * shape.C));

        std::vector<T> dz;
        for (size_t i = 0; i < c.dy.size(); ++i) {
          dz.push_back(static_cast<T>(static_cast<float>(to_double(c.dy[i]) * slope(act, to_double(c.y[i])))));
        }
        const auto e = expected_gradients(c, dz);
        auto dx = nan_values<T>(c.x.size());
        auto dweight = nan_values<float>(c.weight.size()), dbias = nan_values<float>(c.bias.size());
        auto dy = c.dy;
        cpu::conv2d_grad(cpu_stream(), shape, act, c.x.data(), c.weight.data(), c.y.data(), dy.data(),
                         {dx.data(), dweight.data(), dbias.data()});
        EXPECT_LE(max_relative_error(dx, e.dx), tolerance<T>(shape.R * shape.S * shape.O));
        const double sums = tolerance<float>(shape.N * shape.P() * shape.Q());
        EXPECT_LE(max_relative_error(dweight, e.dweight), sums);
        EXPECT_LE(max_relative_error(dbias, e.dbias), sums);
      }
    }
  }
}

TYPED_TEST(Conv2dKernel, ComputesOnlyTheGradientsThatAreAskedFor) {
  using T = TypeParam;
  for (const Conv2dShape& shape : {kShapes[2], kShapes[5]}) {
    SCOPED_TRACE(text(shape));
    const Case<T> c(shape);
    const auto e = expected_gradients(c, c.dy);
    auto dy = c.dy, dx = nan_values<T>(c.x.size());
    auto dweight = nan_values<float>(c.weight.size());
    const auto grad = [&](T* to_dx, float* to_dweight) {
      cpu::conv2d_grad<T>(cpu_stream(), shape, Activation::kNone, c.x.data(), c.weight.data(), nullptr, dy.data(),
                          {to_dx, to_dweight});
    };
    grad(nullptr, dweight.data());
    grad(dx.data(), nullptr);
    grad(nullptr, nullptr);
    EXPECT_LE(max_relative_error(dx, e.dx), tolerance<T>(shape.R * shape.S * shape.O));
    EXPECT_LE(max_relative_error(dweight, e.dweight), tolerance<float>(shape.N * shape.P() * shape.Q()));
  }
}

TYPED_TEST(Conv2dKernel, GoesOnThroughTheActivationBelow) {
  using T = TypeParam;
  for (const Conv2dShape& shape : {kShapes[2], kShapes[3], kShapes[5], kShapes[7], kShapes[11]}) {
    for (const Activation below : {Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
      for (const bool with_sums : {false, true}) {
        SCOPED_TRACE(text(shape) + " activation " + std::to_string(static_cast<int>(below)));
        Case<T> c(shape);
        for (T& x : c.x) x = static_cast<T>(8.0f * static_cast<float>(x));  // values beyond 6, too
        auto e = expected_gradients(c, c.dy);
        for (size_t i = 0; i < e.dx.size(); ++i) e.dx[i] *= slope(below, to_double(c.x[i]));
        auto dx = nan_values<T>(c.x.size());
        auto dweight = nan_values<float>(c.weight.size()), sums = nan_values<float>(static_cast<size_t>(shape.C));
        auto dy = c.dy;
        cpu::conv2d_grad<T>(cpu_stream(), shape, Activation::kNone, c.x.data(), c.weight.data(), nullptr, dy.data(),
                            {.dx = dx.data(),
                             .dweight = dweight.data(),
                             .below = below,
                             .dbias_below = with_sums ? sums.data() : nullptr});
        EXPECT_LE(max_relative_error(dx, e.dx), tolerance<T>(shape.R * shape.S * shape.O));
        const double rows = tolerance<float>(shape.N * shape.P() * shape.Q());
        EXPECT_LE(max_relative_error(dweight, e.dweight), rows);
        std::vector<double> expected_sums(sums.size());
        for (size_t i = 0; i < dx.size(); ++i) expected_sums[i % sums.size()] += to_double(dx[i]);
        if (with_sums)
          EXPECT_LE(max_relative_error(sums, expected_sums), tolerance<float>(shape.N * shape.H * shape.W));
        else
          EXPECT_TRUE(std::isnan(sums[0]));
      }
    }
  }
}

TYPED_TEST(Conv2dKernel, NanReachesTheOutput) {
  using T = TypeParam;
  for (const Conv2dShape& shape : {kShapes[2], kShapes[5]}) {
    Case<T> c(shape);
    c.x[0] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
    for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
      cpu::conv2d(cpu_stream(), shape, act, c.x.data(), c.weight.data(), c.bias.data(), c.y.data());
      EXPECT_TRUE(std::isnan(to_double(c.y[0]))) << text(shape) << " activation " << static_cast<int>(act);
      EXPECT_FALSE(std::isnan(to_double(c.y.back())));
    }
  }
}

TYPED_TEST(Conv2dKernel, DoesNotDependOnTheNumberOfThreads) {
  using T = TypeParam;
  const Conv2dShape shape{2, 40, 37, 48, 65, 3, 3, 1, 1, 1, 1, 1, 1};
  const Case<T> c(shape);
  const int threads = num_threads();
  std::vector<std::vector<T>> images;
  std::vector<std::vector<float>> weights;
  for (const int count : {1, 2, 3}) {
    set_num_threads(count);
    auto y = nan_values<T>(c.dy.size()), dx = nan_values<T>(c.x.size()), dy = c.dy;
    auto dweight = nan_values<float>(c.weight.size());
    cpu::conv2d<T>(cpu_stream(), shape, Activation::kNone, c.x.data(), c.weight.data(), nullptr, y.data());
    cpu::conv2d_grad<T>(cpu_stream(), shape, Activation::kNone, c.x.data(), c.weight.data(), nullptr, dy.data(),
                        {dx.data(), dweight.data()});
    y.insert(y.end(), dx.begin(), dx.end());
    images.push_back(y);
    weights.push_back(dweight);
  }
  set_num_threads(threads);
  if (!cpu::tile_kernels<T>()) GTEST_SKIP() << "skipped: no AVX2, and oneDNN makes no such promise";
  for (size_t i = 1; i < images.size(); ++i) {
    EXPECT_EQ(std::memcmp(images[0].data(), images[i].data(), images[0].size() * sizeof(T)), 0);
    EXPECT_EQ(weights[0], weights[i]);
  }
}

}  // namespace
}  // namespace depthstill
