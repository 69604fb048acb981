#include "kernels/head_conv.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class HeadConvKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(HeadConvKernel, Types);

struct Size {
  int64_t pixels, channels;
};
constexpr Size kSizes[] = {{1, 1}, {3, 7}, {19, 33}, {70, 40}, {600, 32}, {2, 1031}};

// What the formulas of the header give in double. x is an activation's output where `below` is one: 0 in places.
template <class T>
struct Case {
  size_t P, C;
  std::vector<T> x;
  std::vector<float> weight, bias, dy, y_saved;
  std::vector<double> y, dx, dweight, dbias, below_sums;

  Case(const Size& s, Activation kind, Activation below)
      : P(static_cast<size_t>(s.pixels)),
        C(static_cast<size_t>(s.channels)),
        x(random_values<T>(P * C, 1, -1.0f, 2.0f)),
        weight(random_values<float>(C, 2, -1.0f, 1.4f)),
        bias{0.3f},
        dy(random_values<float>(P, 3, -0.7f, 1.0f)),
        dx(P * C),
        dweight(C),
        dbias(1),
        below_sums(C) {
    if (below == Activation::kRelu) {
      for (T& v : x) v = static_cast<float>(v) > 0 ? v : T(0.0f);
    }
    for (size_t p = 0; p < P; ++p) {
      double sum = static_cast<double>(bias[0]);
      for (size_t c = 0; c < C; ++c) sum += to_double(x[p * C + c]) * to_double(weight[c]);
      const bool off = kind == Activation::kRelu && !(sum > 0);
      y.push_back(off ? 0.0 : sum);
      y_saved.push_back(static_cast<float>(y.back()));
      const double g = off ? 0.0 : to_double(dy[p]);
      dbias[0] += g;
      for (size_t c = 0; c < C; ++c) {
        const double v = to_double(x[p * C + c]);
        dweight[c] += g * v;
        dx[p * C + c] = below == Activation::kRelu && !(v > 0) ? 0.0 : g * to_double(weight[c]);
        below_sums[c] += dx[p * C + c];
      }
    }
  }
};

// Sums of both signs are compared with the sum of magnitudes' size.
double sum_tolerance(int64_t pixels) { return 4 * tolerance<float>(pixels); }

TYPED_TEST(HeadConvKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const Size& s : kSizes) {
    for (const Activation kind : {Activation::kNone, Activation::kRelu}) {
      for (const Activation below : {Activation::kNone, Activation::kRelu}) {
        SCOPED_TRACE(::testing::Message() << s.pixels << "x" << s.channels << ", activations " << static_cast<int>(kind)
                                          << " over " << static_cast<int>(below));
        const Case<T> c(s, kind, below);
        auto y = nan_values<float>(c.P), dweight = nan_values<float>(c.C), sums = dweight;
        auto dbias = nan_values<float>(1);
        auto dx = nan_values<T>(c.P * c.C);
        cpu::head_conv(cpu_stream(), s.pixels, s.channels, kind, c.x.data(), c.weight.data(), c.bias.data(), y.data());
        cpu::head_conv_grad<T>(
            cpu_stream(), s.pixels, s.channels, kind, c.x.data(), c.weight.data(), c.y_saved.data(), c.dy.data(),
            {dx.data(), dweight.data(), dbias.data(), below, below == Activation::kRelu ? sums.data() : nullptr});
        EXPECT_LE(max_relative_error(y, c.y), tolerance<float>(s.channels));
        EXPECT_LE(max_relative_error(dx, c.dx), tolerance<T>());
        EXPECT_LE(max_relative_error(dweight, c.dweight), sum_tolerance(s.pixels));
        EXPECT_LE(max_relative_error(dbias, c.dbias), sum_tolerance(s.pixels));
        if (below == Activation::kRelu) {
          EXPECT_LE(max_relative_error(sums, c.below_sums), sum_tolerance(s.pixels));
        }

        for_each_schedule([&] {
          const DeviceArray<T> x(c.x);
          const DeviceArray<float> weight(c.weight), bias(c.bias), dy(c.dy), y_saved(c.y_saved);
          DeviceArray<float> y_device(c.P), dweight_device(c.C), sums_device(c.C), dbias_device(1);
          DeviceArray<T> dx_device(c.P * c.C);
          cuda::head_conv(cuda_stream(), s.pixels, s.channels, kind, x.data(), weight.data(), bias.data(),
                          y_device.data());
          cuda::head_conv_grad<T>(cuda_stream(), s.pixels, s.channels, kind, x.data(), weight.data(), y_saved.data(),
                                  dy.data(),
                                  {dx_device.data(), dweight_device.data(), dbias_device.data(), below,
                                   below == Activation::kRelu ? sums_device.data() : nullptr});
          EXPECT_LE(max_relative_error(y_device.host(), c.y), tolerance<float>(s.channels));
          EXPECT_LE(max_relative_error(dx_device.host(), c.dx), tolerance<T>());
          EXPECT_LE(max_relative_error(dweight_device.host(), c.dweight), sum_tolerance(s.pixels));
          EXPECT_LE(max_relative_error(dbias_device.host(), c.dbias), sum_tolerance(s.pixels));
          if (below == Activation::kRelu) {
            EXPECT_LE(max_relative_error(sums_device.host(), c.below_sums), sum_tolerance(s.pixels));
          }
        });
      }
    }
  }
}

TYPED_TEST(HeadConvKernel, EachGradientAloneIsTheSame) {
  using T = TypeParam;
  const Size s{300, 40};
  const Case<T> c(s, Activation::kRelu, Activation::kNone);
  const auto gradients = [&](bool with_dx, bool with_dweight, bool with_dbias) {
    auto dx = nan_values<T>(c.P * c.C);
    auto dweight = nan_values<float>(c.C), dbias = nan_values<float>(1);
    cpu::head_conv_grad<T>(
        cpu_stream(), s.pixels, s.channels, Activation::kRelu, c.x.data(), c.weight.data(), c.y_saved.data(),
        c.dy.data(),
        {with_dx ? dx.data() : nullptr, with_dweight ? dweight.data() : nullptr, with_dbias ? dbias.data() : nullptr});
    return std::tuple(dx, dweight, dbias);
  };
  const auto [dx, dweight, dbias] = gradients(true, true, true);
  EXPECT_EQ(max_relative_error(std::get<0>(gradients(true, false, false)), dx), 0.0);
  EXPECT_EQ(std::get<1>(gradients(false, true, false)), dweight);
  EXPECT_EQ(std::get<2>(gradients(false, false, true)), dbias);
  for_each_schedule([&] {
    const DeviceArray<T> x(c.x);
    const DeviceArray<float> weight(c.weight), dy(c.dy), y_saved(c.y_saved);
    DeviceArray<float> dweight_device(c.C), alone(c.C);
    DeviceArray<T> dx_device(c.P * c.C), dx_alone(c.P * c.C);
    const auto run = [&](const HeadConvGradients<T>& to) {
      cuda::head_conv_grad<T>(cuda_stream(), s.pixels, s.channels, Activation::kRelu, x.data(), weight.data(),
                              y_saved.data(), dy.data(), to);
    };
    run({dx_device.data(), dweight_device.data()});
    run({nullptr, alone.data()});
    run({dx_alone.data()});
    EXPECT_EQ(alone.host(), dweight_device.host());
    EXPECT_EQ(max_relative_error(dx_alone.host(), dx_device.host()), 0.0);
  });
}

}  // namespace
}  // namespace depthstill
