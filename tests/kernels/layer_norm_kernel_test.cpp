#include "kernels/core/parallel.h"
#include "kernels/layer_norm.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class LayerNormKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(LayerNormKernel, Types);

struct Size {
  int64_t rows, channels;
};
// Two and more blocks of rows, chunks of row sums, slabs of channels.
constexpr Size kSizes[] = {{1, 1}, {3, 2}, {9, 8}, {20, 33}, {17, 257}, {300, 40}, {33, 384}, {2, 1031}};
constexpr float kEps = 1e-3f;  // large enough to matter

template <class T>
struct Case {
  Size size;
  std::vector<T> x, dy;
  std::vector<float> weight, bias;
  std::vector<double> y, mean, rstd, dx, dweight, dbias;  // expected

  explicit Case(const Size& s, float centre = 0.3f)
      : size(s),
        x(random_values<T>(static_cast<size_t>(s.rows * s.channels), 1, centre - 1.0f, centre + 1.0f)),
        dy(random_values<T>(x.size(), 2, -1.5f, 1.0f)),
        weight(random_values<float>(static_cast<size_t>(s.channels), 3, 0.5f, 2.0f)),
        bias(random_values<float>(static_cast<size_t>(s.channels), 4)),
        y(x.size()),
        dx(x.size()),
        dweight(weight.size()),
        dbias(bias.size()) {
    const size_t C = weight.size();
    const auto n = static_cast<double>(C);
    for (size_t begin = 0; begin < x.size(); begin += C) {
      double m = 0, var = 0, g_mean = 0, gh_mean = 0;
      for (size_t c = 0; c < C; ++c) m += to_double(x[begin + c]) / n;
      for (size_t c = 0; c < C; ++c) var += std::pow(to_double(x[begin + c]) - m, 2) / n;
      const double r = 1 / std::sqrt(var + to_double(kEps));
      const auto h = [&](size_t c) { return (to_double(x[begin + c]) - m) * r; };
      const auto g = [&](size_t c) { return to_double(dy[begin + c]) * to_double(weight[c]); };
      for (size_t c = 0; c < C; ++c) {
        y[begin + c] = h(c) * to_double(weight[c]) + to_double(bias[c]);
        g_mean += g(c) / n;
        gh_mean += g(c) * h(c) / n;
        dweight[c] += to_double(dy[begin + c]) * h(c);
        dbias[c] += to_double(dy[begin + c]);
      }
      for (size_t c = 0; c < C; ++c) dx[begin + c] = r * (g(c) - g_mean - h(c) * gh_mean);
      mean.push_back(m);
      rstd.push_back(r);
    }
  }
};

template <class T>
struct Results {
  std::vector<T> y, dx;
  std::vector<float> mean, rstd, dweight, dbias;
};

template <class T>
Results<T> on_cpu(const Case<T>& c) {
  const auto [rows, channels] = c.size;
  Results<T> r{nan_values<T>(c.x.size()),          nan_values<T>(c.x.size()),
               nan_values<float>(c.mean.size()),   nan_values<float>(c.mean.size()),
               nan_values<float>(c.weight.size()), nan_values<float>(c.weight.size())};
  cpu::layer_norm(cpu_stream(), rows, channels, kEps, c.x.data(), c.weight.data(), c.bias.data(), r.y.data(),
                  r.mean.data(), r.rstd.data());
  cpu::layer_norm_grad(cpu_stream(), rows, channels, {c.x.data(), c.weight.data(), r.mean.data(), r.rstd.data()},
                       c.dy.data(), r.dx.data(), r.dweight.data(), r.dbias.data());
  return r;
}

template <class T>
Results<T> on_cuda(const Case<T>& c) {
  const auto [rows, channels] = c.size;
  const DeviceArray<T> x(c.x), dy(c.dy);
  const DeviceArray<float> weight(c.weight), bias(c.bias);
  DeviceArray<T> y(c.x.size()), dx(c.x.size());
  DeviceArray<float> mean(c.mean.size()), rstd(c.mean.size()), dweight(c.weight.size()), dbias(c.weight.size());
  cuda::layer_norm(cuda_stream(), rows, channels, kEps, x.data(), weight.data(), bias.data(), y.data(), mean.data(),
                   rstd.data());
  cuda::layer_norm_grad(cuda_stream(), rows, channels, {x.data(), weight.data(), mean.data(), rstd.data()}, dy.data(),
                        dx.data(), dweight.data(), dbias.data());
  return {y.host(), dx.host(), mean.host(), rstd.host(), dweight.host(), dbias.host()};
}

template <class T>
void expect_close(const Results<T>& r, const Case<T>& c) {
  const auto [rows, channels] = c.size;
  EXPECT_LE(max_relative_error(r.y, c.y), tolerance<T>(channels));
  EXPECT_LE(max_relative_error(r.mean, c.mean), tolerance<float>(channels));
  EXPECT_LE(max_relative_error(r.rstd, c.rstd), tolerance<float>(channels));
  // With one or two channels dx cancels to almost zero; otherwise its terms are of the size of their sum.
  if (channels > 2) {
    EXPECT_LE(max_relative_error(r.dx, c.dx), tolerance<T>(channels));
  }
  EXPECT_LE(max_relative_error(r.dweight, c.dweight), tolerance<float>(rows + channels));
  EXPECT_LE(max_relative_error(r.dbias, c.dbias), tolerance<float>(rows));
}

TYPED_TEST(LayerNormKernel, MatchesTheFormulas) {
  for (const Size& size : kSizes) {
    SCOPED_TRACE(::testing::Message() << size.rows << "x" << size.channels);
    const Case<TypeParam> c(size);
    expect_close(on_cpu(c), c);
    for_each_schedule([&] { expect_close(on_cuda(c), c); });
  }
}

TYPED_TEST(LayerNormKernel, ALargeMeanDoesNotCancelTheVariance) {
  // Spread 1 around 3000: E[x^2] - E[x]^2 would lose the variance, whose own rounding is 3000 eps relative to x.
  if (std::is_same_v<TypeParam, bf16>) GTEST_SKIP() << "skipped: bf16 cannot hold such values";
  const Case<TypeParam> c({5, 200}, 3000.0f);
  EXPECT_LE(max_relative_error(on_cpu(c).rstd, c.rstd), 1e-5);
  EXPECT_LE(max_relative_error(on_cuda(c).rstd, c.rstd), 1e-5);
}

TYPED_TEST(LayerNormKernel, WorksInPlaceAndLeavesOutWhatIsNull) {
  using T = TypeParam;
  const Case<T> c({37, 48});
  const auto [rows, channels] = c.size;
  const Results<T> all = on_cpu(c), all_cuda = on_cuda(c);
  auto dx = c.dy, alone = nan_values<T>(c.x.size());
  auto dweight = nan_values<float>(48), dbias = nan_values<float>(48);
  const auto grad = [&](T* to_dx, float* to_dweight, float* to_dbias, const T* dy) {
    cpu::layer_norm_grad(cpu_stream(), rows, channels, {c.x.data(), c.weight.data(), all.mean.data(), all.rstd.data()},
                         dy, to_dx, to_dweight, to_dbias);
  };
  grad(dx.data(), dweight.data(), dbias.data(), dx.data());
  EXPECT_EQ(max_relative_error(dx, all.dx), 0.0);
  EXPECT_EQ(dweight, all.dweight);
  EXPECT_EQ(dbias, all.dbias);
  grad(alone.data(), nullptr, nullptr, c.dy.data());
  EXPECT_EQ(max_relative_error(alone, all.dx), 0.0);
  dweight = dbias = nan_values<float>(48);
  grad(nullptr, dweight.data(), nullptr, c.dy.data());
  grad(nullptr, nullptr, dbias.data(), c.dy.data());
  EXPECT_EQ(dweight, all.dweight);
  EXPECT_EQ(dbias, all.dbias);

  for_each_schedule([&] {
    const DeviceArray<T> x(c.x);
    const DeviceArray<float> weight(c.weight), mean(all_cuda.mean), rstd(all_cuda.rstd);
    DeviceArray<T> dx_device(c.dy);
    DeviceArray<float> dweight_device(48), dbias_device(48);
    const auto run = [&](T* to_dx, float* to_dweight, float* to_dbias) {
      cuda::layer_norm_grad(cuda_stream(), rows, channels, {x.data(), weight.data(), mean.data(), rstd.data()},
                            dx_device.data(), to_dx, to_dweight, to_dbias);
    };
    run(nullptr, dweight_device.data(), nullptr);
    run(nullptr, nullptr, dbias_device.data());
    EXPECT_EQ(dweight_device.host(), all_cuda.dweight);
    EXPECT_EQ(dbias_device.host(), all_cuda.dbias);
    run(dx_device.data(), dweight_device.data(), dbias_device.data());
    EXPECT_EQ(max_relative_error(dx_device.host(), all_cuda.dx), 0.0);
    EXPECT_EQ(dweight_device.host(), all_cuda.dweight);
    EXPECT_EQ(dbias_device.host(), all_cuda.dbias);
  });
}

TYPED_TEST(LayerNormKernel, SumsDoNotDependOnTheNumberOfThreads) {
  const Case<TypeParam> c({171, 70});
  const int threads = num_threads();
  set_num_threads(1);
  const Results<TypeParam> one = on_cpu(c);
  set_num_threads(3);
  const Results<TypeParam> three = on_cpu(c);
  set_num_threads(threads);
  EXPECT_EQ(one.dweight, three.dweight);
  EXPECT_EQ(one.dbias, three.dbias);
}

TYPED_TEST(LayerNormKernel, KeepsNaNInItsRow) {
  using T = TypeParam;
  Case<T> c({12, 40});
  c.x[45] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
  const auto y = on_cpu(c).y, y_cuda = on_cuda(c).y;
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(std::isnan(to_double(y[i])), i / 40 == 1) << i;
    EXPECT_EQ(std::isnan(to_double(y_cuda[i])), i / 40 == 1) << i;
  }
}

}  // namespace
}  // namespace depthstill
