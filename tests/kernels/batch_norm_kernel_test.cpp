#include <cstring>

#include "kernels/batch_norm.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class BatchNormKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(BatchNormKernel, Types);

constexpr float kEps = 1e-3f, kMomentum = 0.3f;

struct Case {
  int64_t rows;
  int channels;
  Activation act;
};

// Channels around vectors and slabs; rows around one chunk of the CPU (64) and of the GPU (256), and several of each.
constexpr Case kCases[] = {{31, 1, Activation::kNone},   {3, 5, Activation::kRelu},
                           {65, 16, Activation::kRelu6}, {257, 40, Activation::kRelu6},
                           {900, 33, Activation::kRelu}, {1031, 8, Activation::kSigmoid},
                           {640, 72, Activation::kNone}, {129, 24, Activation::kSigmoid}};

// A Problem is what the op works on; an Expected is what it must give, in double.
template <class T>
struct Problem {
  int64_t rows;
  int channels;
  Activation act;
  std::vector<T> x, dy;
  std::vector<float> weight, bias, running_mean, running_var;

  explicit Problem(const Case& c) : rows(c.rows), channels(c.channels), act(c.act) {
    const auto n = static_cast<size_t>(rows * channels), C = static_cast<size_t>(channels);
    x = random_values<T>(n, 1, -2.0f, 3.0f);
    dy = random_values<T>(n, 2, -1.0f, 2.0f);
    weight = random_values<float>(C, 3, 0.5f, 3.0f);
    bias = random_values<float>(C, 4, -0.5f, 2.0f);
    running_mean = random_values<float>(C, 5);
    running_var = random_values<float>(C, 6, 0.5f, 2.0f);
  }
};

struct Expected {
  std::vector<double> running_mean, running_var, mean, rstd, y, dx, dweight, dbias;
};

double activate(Activation act, double x) {
  if (act == Activation::kRelu) return std::max(x, 0.0);
  if (act == Activation::kRelu6) return std::min(std::max(x, 0.0), 6.0);
  if (act == Activation::kSigmoid) return 1.0 / (1.0 + std::exp(-x));
  return x;
}

double slope(Activation act, double x) {
  if (act == Activation::kRelu) return x > 0.0 ? 1.0 : 0.0;
  if (act == Activation::kRelu6) return x > 0.0 && x < 6.0 ? 1.0 : 0.0;
  if (act == Activation::kSigmoid) return activate(act, x) * (1.0 - activate(act, x));
  return 1.0;
}

template <class T>
Expected reference(const Problem<T>& p, Statistics statistics) {
  const auto C = static_cast<size_t>(p.channels), rows = static_cast<size_t>(p.rows);
  const auto n = static_cast<double>(rows);
  Expected e;
  e.y.resize(rows * C);
  e.dx.resize(rows * C);
  for (size_t c = 0; c < C; ++c) {
    const double old_mean = to_double(p.running_mean[c]), old_var = to_double(p.running_var[c]);
    double mean = 0, var = 0;
    for (size_t r = 0; r < rows; ++r) mean += to_double(p.x[r * C + c]) / n;
    for (size_t r = 0; r < rows; ++r) var += std::pow(to_double(p.x[r * C + c]) - mean, 2) / n;
    e.running_mean.push_back(old_mean + to_double(kMomentum) * (mean - old_mean));
    e.running_var.push_back(old_var + to_double(kMomentum) * (var * n / (n - 1) - old_var));
    if (statistics == Statistics::kConstant) {
      mean = old_mean;
      var = old_var;
    }
    const double rstd = 1 / std::sqrt(var + to_double(kEps)), weight = to_double(p.weight[c]);
    e.mean.push_back(mean);
    e.rstd.push_back(rstd);
    double sum = 0, sum_h = 0;
    for (size_t i = c; i < rows * C; i += C) {
      const double h = (to_double(p.x[i]) - mean) * rstd, z = h * weight + to_double(p.bias[c]);
      const double dz = to_double(p.dy[i]) * slope(p.act, z);
      e.y[i] = activate(p.act, z);
      sum += dz;
      sum_h += dz * h;
      e.dx[i] = dz;
    }
    e.dbias.push_back(sum);
    e.dweight.push_back(sum_h);
    for (size_t i = c; i < rows * C; i += C) {
      const double h = (to_double(p.x[i]) - mean) * rstd;
      if (statistics == Statistics::kBatch) e.dx[i] -= sum / n + h * sum_h / n;
      e.dx[i] *= weight * rstd;
    }
  }
  return e;
}

template <class T>
struct Found {
  std::vector<float> running_mean, running_var, mean, rstd, dweight, dbias;
  std::vector<T> y, dx;
};

template <class T>
Found<T> run_cpu(const Problem<T>& p, Statistics statistics) {
  const auto C = static_cast<size_t>(p.channels);
  const Stream stream = cpu_stream();
  Found<T> f{p.running_mean,       p.running_var,        nan_values<float>(C),      nan_values<float>(C),
             nan_values<float>(C), nan_values<float>(C), nan_values<T>(p.x.size()), nan_values<T>(p.x.size())};
  if (statistics == Statistics::kBatch) {
    cpu::batch_norm_batch_stats(stream, p.rows, p.channels, kEps, kMomentum, p.x.data(), f.running_mean.data(),
                                f.running_var.data(), f.mean.data(), f.rstd.data());
  } else {
    cpu::batch_norm_running_stats(stream, p.channels, kEps, p.running_mean.data(), p.running_var.data(), f.mean.data(),
                                  f.rstd.data());
  }
  cpu::batch_norm(stream, p.rows, p.channels, {p.act, f.mean.data(), f.rstd.data(), p.weight.data(), p.bias.data()},
                  p.x.data(), f.y.data());
  cpu::batch_norm_grad<T>(stream, p.rows, p.channels,
                          {p.act, f.mean.data(), f.rstd.data(), p.weight.data(), p.bias.data()}, statistics, p.x.data(),
                          p.dy.data(), {f.dx.data(), f.dweight.data(), f.dbias.data()});
  return f;
}

// dx is written over dy.
template <class T>
Found<T> run_cuda(const Problem<T>& p, Statistics statistics) {
  const auto C = static_cast<size_t>(p.channels);
  const Stream stream = cuda_stream();
  const DeviceArray<T> x(p.x);
  const DeviceArray<float> weight(p.weight), bias(p.bias);
  DeviceArray<float> running_mean(p.running_mean), running_var(p.running_var), mean(C), rstd(C), dweight(C), dbias(C);
  DeviceArray<T> y(p.x.size()), dx(p.dy);
  if (statistics == Statistics::kBatch) {
    cuda::batch_norm_batch_stats(stream, p.rows, p.channels, kEps, kMomentum, x.data(), running_mean.data(),
                                 running_var.data(), mean.data(), rstd.data());
  } else {
    cuda::batch_norm_running_stats(stream, p.channels, kEps, running_mean.data(), running_var.data(), mean.data(),
                                   rstd.data());
  }
  cuda::batch_norm(stream, p.rows, p.channels, {p.act, mean.data(), rstd.data(), weight.data(), bias.data()}, x.data(),
                   y.data());
  cuda::batch_norm_grad<T>(stream, p.rows, p.channels, {p.act, mean.data(), rstd.data(), weight.data(), bias.data()},
                           statistics, x.data(), dx.data(), {dx.data(), dweight.data(), dbias.data()});
  return {running_mean.host(), running_var.host(), mean.host(), rstd.host(),
          dweight.host(),      dbias.host(),       y.host(),    dx.host()};
}

template <class T>
void expect_close(const Found<T>& found, const Expected& expected, Statistics statistics, int64_t rows) {
  const double of_sums = tolerance<float>(rows);
  if (statistics == Statistics::kBatch) {
    EXPECT_LE(max_relative_error(found.running_mean, expected.running_mean), of_sums);
    EXPECT_LE(max_relative_error(found.running_var, expected.running_var), of_sums);
  }
  EXPECT_LE(max_relative_error(found.mean, expected.mean), of_sums);
  EXPECT_LE(max_relative_error(found.rstd, expected.rstd), of_sums);
  EXPECT_LE(max_relative_error(found.y, expected.y), tolerance<T>(rows));
  EXPECT_LE(max_relative_error(found.dx, expected.dx), tolerance<T>(rows));
  EXPECT_LE(max_relative_error(found.dweight, expected.dweight), of_sums);
  EXPECT_LE(max_relative_error(found.dbias, expected.dbias), of_sums);
}

TYPED_TEST(BatchNormKernel, MatchesTheFormulas) {
  for (const Case& c : kCases) {
    for (const Statistics statistics : {Statistics::kBatch, Statistics::kConstant}) {
      SCOPED_TRACE(::testing::Message() << c.rows << " x " << c.channels << ", activation " << static_cast<int>(c.act)
                                        << (statistics == Statistics::kBatch ? ", batch" : ", constant"));
      const Problem<TypeParam> problem(c);
      const Expected expected = reference(problem, statistics);
      expect_close(run_cpu(problem, statistics), expected, statistics, c.rows);
      for_each_schedule([&] { expect_close(run_cuda(problem, statistics), expected, statistics, c.rows); });
    }
  }
}

// The gradient comes from the sums of dz, which is y's gradient where there is no activation.
TYPED_TEST(BatchNormKernel, GradientOfReadySums) {
  using T = TypeParam;
  for (const Case& c : {Case{37, 40, Activation::kNone}, {64, 3, Activation::kNone}, {9, 128, Activation::kNone}}) {
    for (const Statistics statistics : {Statistics::kBatch, Statistics::kConstant}) {
      SCOPED_TRACE(::testing::Message() << c.rows << " x " << c.channels);
      const Problem<T> p(c);
      const Expected expected = reference(p, statistics);
      const auto C = static_cast<size_t>(p.channels);
      std::vector<float> mean, rstd, sums;
      for (size_t i = 0; i < C; ++i) {
        mean.push_back(static_cast<float>(expected.mean[i]));
        rstd.push_back(static_cast<float>(expected.rstd[i]));
      }
      for (size_t i = 0; i < C; ++i) sums.push_back(static_cast<float>(expected.dbias[i]));
      for (size_t i = 0; i < C; ++i) sums.push_back(static_cast<float>(expected.dweight[i] / expected.rstd[i]));
      const auto expect_gradients = [&](const std::vector<T>& dx, const std::vector<float>& dweight,
                                        const std::vector<float>& dbias) {
        EXPECT_LE(max_relative_error(dx, expected.dx), tolerance<T>(p.rows));
        EXPECT_LE(max_relative_error(dweight, expected.dweight), tolerance<float>());
        EXPECT_LE(max_relative_error(dbias, expected.dbias), tolerance<float>());
      };
      auto dx = p.dy;  // dx is written over dz
      auto dweight = nan_values<float>(C), dbias = nan_values<float>(C);
      cpu::batch_norm_grad_of_sums(cpu_stream(), p.rows, p.channels,
                                   {Activation::kNone, mean.data(), rstd.data(), p.weight.data(), p.weight.data()},
                                   statistics, p.x.data(), sums.data(), dx.data(),
                                   {dx.data(), dweight.data(), dbias.data()});
      expect_gradients(dx, dweight, dbias);
      for_each_schedule([&] {
        const DeviceArray<T> x(p.x), dz(p.dy);
        const DeviceArray<float> mean_(mean), rstd_(rstd), weight(p.weight), sums_(sums);
        DeviceArray<T> dx_(p.x.size());
        DeviceArray<float> dweight_(C), dbias_(C);
        cuda::batch_norm_grad_of_sums(cuda_stream(), p.rows, p.channels,
                                      {Activation::kNone, mean_.data(), rstd_.data(), weight.data(), weight.data()},
                                      statistics, x.data(), sums_.data(), dz.data(),
                                      {dx_.data(), dweight_.data(), dbias_.data()});
        expect_gradients(dx_.host(), dweight_.host(), dbias_.host());
      });
    }
  }
}

// The moments must give what the rows give; there are more channels than a block of the kernel has threads.
TEST(BatchNormKernelReadyStats, MatchThoseOfTheRows) {
  const Problem<float> p({67, 1100, Activation::kNone});
  const auto C = static_cast<size_t>(p.channels);
  const Expected expected = reference(p, Statistics::kBatch);
  std::vector<float> moments;
  for (const double mean : expected.mean) moments.push_back(static_cast<float>(mean));
  for (const double rstd : expected.rstd) moments.push_back(static_cast<float>(1 / (rstd * rstd) - to_double(kEps)));
  const auto expect_same = [&](const std::vector<float>& running_mean, const std::vector<float>& running_var,
                               const std::vector<float>& mean, const std::vector<float>& rstd) {
    EXPECT_LE(max_relative_error(running_mean, expected.running_mean), tolerance<float>());
    EXPECT_LE(max_relative_error(running_var, expected.running_var), tolerance<float>());
    EXPECT_LE(max_relative_error(mean, expected.mean), tolerance<float>());
    EXPECT_LE(max_relative_error(rstd, expected.rstd), tolerance<float>());
  };
  auto running_mean = p.running_mean, running_var = p.running_var, mean = nan_values<float>(C), rstd = mean;
  cpu::batch_norm_ready_stats(cpu_stream(), p.rows, p.channels, kEps, kMomentum, moments.data(), running_mean.data(),
                              running_var.data(), mean.data(), rstd.data());
  expect_same(running_mean, running_var, mean, rstd);
  for_each_schedule([&] {
    const DeviceArray<float> device_moments(moments);
    DeviceArray<float> device_running_mean(p.running_mean), device_running_var(p.running_var), device_mean(C),
        device_rstd(C);
    cuda::batch_norm_ready_stats(cuda_stream(), p.rows, p.channels, kEps, kMomentum, device_moments.data(),
                                 device_running_mean.data(), device_running_var.data(), device_mean.data(),
                                 device_rstd.data());
    expect_same(device_running_mean.host(), device_running_var.host(), device_mean.host(), device_rstd.host());
  });
}

// A mean 4000 standard deviations from zero: E[x^2] - E[x]^2 in float would lose the variance altogether.
TYPED_TEST(BatchNormKernel, KeepsTheVarianceOfValuesFarFromZero) {
  Problem<float> problem({700, 20, Activation::kNone});
  for (float& x : problem.x) x = 4000.0f + x;
  const Expected expected = reference(problem, Statistics::kBatch);
  EXPECT_LE(max_relative_error(run_cpu(problem, Statistics::kBatch).rstd, expected.rstd), 1e-5);
  for_each_schedule(
      [&] { EXPECT_LE(max_relative_error(run_cuda(problem, Statistics::kBatch).rstd, expected.rstd), 1e-5); });
}

// mean and biased variance per channel, one after the other, in double.
template <class T>
std::vector<double> moments_of(const Problem<T>& p) {
  const auto C = static_cast<size_t>(p.channels);
  const auto n = static_cast<double>(p.rows);
  std::vector<double> moments(2 * C);
  for (size_t i = 0; i < p.x.size(); ++i) moments[i % C] += to_double(p.x[i]) / n;
  for (size_t i = 0; i < p.x.size(); ++i) moments[C + i % C] += std::pow(to_double(p.x[i]) - moments[i % C], 2) / n;
  return moments;
}

TYPED_TEST(BatchNormKernel, MomentsMatchTheFormulas) {
  for (const Case& c : kCases) {
    const Problem<TypeParam> p(c);
    const std::vector<double> expected = moments_of(p);
    auto moments = nan_values<float>(expected.size());
    cpu::batch_norm_moments(cpu_stream(), p.rows, p.channels, p.x.data(), moments.data());
    EXPECT_LE(max_relative_error(moments, expected), tolerance<float>(c.rows));
    for_each_schedule([&] {
      const DeviceArray<TypeParam> x(p.x);
      DeviceArray<float> found(expected.size());
      cuda::batch_norm_moments(cuda_stream(), p.rows, p.channels, x.data(), found.data());
      EXPECT_LE(max_relative_error(found.host(), expected), tolerance<float>(c.rows));
    });
  }
}

// Sums in float around a guess: near the mean they are enough; from far away, in every third channel, x is read again.
TYPED_TEST(BatchNormKernel, MomentsOfSumsMatchTheFormulasHoweverFarTheGuess) {
  for (const Case& c : kCases) {
    for (const bool far : {false, true}) {
      const Problem<TypeParam> p(c);
      const auto C = static_cast<size_t>(c.channels);
      const std::vector<double> expected = moments_of(p);
      std::vector<float> guess = random_values<float>(C, 7, -1.0f, 2.0f), sums(2 * C, 0.0f);
      for (size_t i = 0; far && i < C; i += 3) guess[i] += i % 2 == 0 ? 3000.0f : -500.0f;
      for (size_t i = 0; i < p.x.size(); ++i) {
        const float d = static_cast<float>(p.x[i]) - guess[i % C];
        sums[i % C] += d;
        sums[C + i % C] += d * d;
      }
      const double allowed = 20 * tolerance<float>(c.rows);
      std::vector<float> moments = sums;
      cpu::batch_norm_moments_of_sums(cpu_stream(), p.rows, p.channels, p.x.data(), guess.data(), moments.data());
      EXPECT_LE(max_relative_error(moments, expected), allowed) << far;
      for_each_schedule([&] {
        const DeviceArray<TypeParam> x(p.x);
        const DeviceArray<float> device_guess(guess);
        DeviceArray<float> found(sums);
        cuda::batch_norm_moments_of_sums(cuda_stream(), p.rows, p.channels, x.data(), device_guess.data(),
                                         found.data());
        EXPECT_LE(max_relative_error(found.host(), expected), allowed) << far;
      });
    }
  }
}

TYPED_TEST(BatchNormKernel, WithoutDxGivesTheSameParameterGradients) {
  const Problem<TypeParam> p({70, 19, Activation::kRelu});
  const Found<TypeParam> with = run_cpu(p, Statistics::kBatch);
  auto dweight = nan_values<float>(19), dbias = dweight;
  cpu::batch_norm_grad<TypeParam>(
      cpu_stream(), p.rows, p.channels, {p.act, with.mean.data(), with.rstd.data(), p.weight.data(), p.bias.data()},
      Statistics::kBatch, p.x.data(), p.dy.data(), {.dweight = dweight.data(), .dbias = dbias.data()});
  EXPECT_EQ(dweight, with.dweight);
  EXPECT_EQ(dbias, with.dbias);
}

template <class T>
void expect_same_bits(const std::vector<T>& found, const std::vector<T>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(T)), 0);
}

// The output comes again along with the gradient, bit for bit, with dx and without.
TYPED_TEST(BatchNormKernel, TheGradientMakesTheOutputAgain) {
  for (const Case& c : kCases) {
    for (const bool with_dx : {true, false}) {
      const Problem<TypeParam> p(c);
      const auto C = static_cast<size_t>(p.channels);
      const Found<TypeParam> expected = run_cpu(p, Statistics::kBatch);
      auto dweight = nan_values<float>(C), dbias = dweight;
      auto y = nan_values<TypeParam>(p.x.size()), dx = y;
      cpu::batch_norm_grad<TypeParam>(
          cpu_stream(), p.rows, p.channels,
          {p.act, expected.mean.data(), expected.rstd.data(), p.weight.data(), p.bias.data()}, Statistics::kBatch,
          p.x.data(), p.dy.data(), {with_dx ? dx.data() : nullptr, dweight.data(), dbias.data(), y.data()});
      expect_same_bits(y, expected.y);
      if (with_dx) expect_same_bits(dx, expected.dx);
      EXPECT_EQ(dweight, expected.dweight);
      for_each_schedule([&] {
        const Found<TypeParam> on_device = run_cuda(p, Statistics::kBatch);
        const DeviceArray<TypeParam> x(p.x);
        const DeviceArray<float> weight(p.weight), bias(p.bias), mean(on_device.mean), rstd(on_device.rstd);
        DeviceArray<float> device_dweight(C), device_dbias(C);
        DeviceArray<TypeParam> device_y(p.x.size()), device_dx(p.dy);
        cuda::batch_norm_grad<TypeParam>(
            cuda_stream(), p.rows, p.channels, {p.act, mean.data(), rstd.data(), weight.data(), bias.data()},
            Statistics::kBatch, x.data(), device_dx.data(),
            {with_dx ? device_dx.data() : nullptr, device_dweight.data(), device_dbias.data(), device_y.data()});
        expect_same_bits(device_y.host(), on_device.y);
        if (with_dx) expect_same_bits(device_dx.host(), on_device.dx);
        EXPECT_EQ(device_dbias.host(), on_device.dbias);
      });
    }
  }
}

TYPED_TEST(BatchNormKernel, NanReachesTheOutput) {
  Problem<TypeParam> problem({40, 16, Activation::kRelu6});
  problem.x[16 * 7 + 3] = static_cast<TypeParam>(std::numeric_limits<float>::quiet_NaN());
  const auto y = run_cpu(problem, Statistics::kBatch).y;
  const auto device_y = run_cuda(problem, Statistics::kBatch).y;
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(std::isnan(to_double(y[i])), i % 16 == 3) << i;
    EXPECT_EQ(std::isnan(to_double(device_y[i])), i % 16 == 3) << i;
  }
}

}  // namespace
}  // namespace depthstill
