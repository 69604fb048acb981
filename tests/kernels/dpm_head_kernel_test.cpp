#include "kernels/conv2d/conv2d.h"
#include "kernels/core/parallel.h"
#include "kernels/dpm/dpm_head.h"
#include "tests/kernels/dpm_reference.h"

namespace depthstill {
namespace {

using namespace dpm_test;

constexpr int64_t kC = 128;

// A Head has an input of `pixels` pixels. All numbers are of bf16, so that no kernel rounds its input.
struct Head {
  std::vector<bf16> x;
  std::vector<float> weight, bias;

  Head(int bins, int64_t pixels, uint32_t seed = 11)
      : x(random_values<bf16>(static_cast<size_t>(pixels * kC), seed, -0.5f, 1.0f)),
        weight(rounded(random_values<bf16>(static_cast<size_t>(bins * kC), seed + 1, -0.6f, 0.6f))),
        bias(rounded(random_values<bf16>(static_cast<size_t>(bins), seed + 2, -0.5f, 0.5f))) {
    for (bf16& v : x) v = static_cast<float>(v) > 0.0f ? v : bf16(0.0f);  // the decoder ends in a ReLU
  }

  static std::vector<float> rounded(const std::vector<bf16>& values) {
    std::vector<float> floats;
    for (const bf16 v : values) floats.push_back(static_cast<float>(v));
    return floats;
  }
  template <class T>
  std::vector<T> x_as() const {
    std::vector<T> values;
    for (const bf16 v : x) values.push_back(static_cast<T>(static_cast<float>(v)));
    return values;
  }
  std::vector<std::vector<double>> rows() const {
    std::vector<std::vector<double>> all(x.size() / kC, std::vector<double>(bias.size()));
    for (size_t i = 0; i < all.size(); ++i) {
      for (size_t b = 0; b < bias.size(); ++b) {
        double sum = static_cast<double>(bias[b]);
        for (size_t k = 0; k < kC; ++k) sum += to_double(x[i * kC + k]) * to_double(weight[b * kC + k]);
        all[i][b] = sum;
      }
    }
    return all;
  }
};

template <class T>
struct Results {
  std::vector<float> depth, lse, result, dweight, dbias, dbias_below;
  std::vector<T> dx;
};

// If dkl is null, there is no KL and no teacher.
template <class T>
Results<T> run_cpu(const DpmShape& shape, const Case& c, const Head& head, const std::vector<float>& teacher,
                   const float* dkl, const float* ddepth, Activation below = Activation::kNone) {
  const auto pixels = static_cast<size_t>(shape.N * shape.H * shape.W), bins = head.bias.size();
  const DpmTable table = make_dpm_table(c.bins, c.options.target, c.options.sigma, c.options.floor);
  Results<T> r{nan_values<float>(pixels),    nan_values<float>(pixels), nan_values<float>(2),
               nan_values<float>(bins * kC), nan_values<float>(bins),   nan_values<float>(kC),
               nan_values<T>(pixels * kC)};
  auto offset = nan_values<float>(pixels);
  const auto x = head.x_as<T>();
  HostScratch memory;
  auto* workspace = static_cast<float*>(memory.get(cpu::dpm_head_workspace<T>(shape, c.bins)));
  const float* target = dkl != nullptr ? teacher.data() : nullptr;
  cpu::dpm_head<T>(
      cpu_stream(), {shape, c.bins, c.options, table.view}, {x.data(), head.weight.data(), head.bias.data()}, target,
      {r.depth.data(), r.lse.data(), dkl != nullptr ? offset.data() : nullptr, r.result.data()}, workspace);
  cpu::dpm_head_grad<T>(cpu_stream(), {shape, c.bins, c.options, table.view},
                        {x.data(), head.weight.data(), head.bias.data()},
                        {target, r.depth.data(), r.lse.data(), offset.data(), r.result.data(), dkl, ddepth},
                        {r.dx.data(), r.dweight.data(), r.dbias.data(), below,
                         below != Activation::kNone ? r.dbias_below.data() : nullptr},
                        workspace);
  return r;
}

Results<bf16> run_cuda(const DpmShape& shape, const Case& c, const Head& head, const std::vector<float>& teacher,
                       bool with_kl, const std::vector<float>& dkl, const std::vector<float>& ddepth,
                       Activation below = Activation::kNone) {
  const auto pixels = static_cast<size_t>(shape.N * shape.H * shape.W), bins = head.bias.size();
  const DpmTable table = make_dpm_table(c.bins, c.options.target, c.options.sigma, c.options.floor);
  const DeviceArray<bf16> x(head.x);
  const DeviceArray<float> weight(head.weight), bias(head.bias), dteacher(teacher), ddkl(dkl), dddepth(ddepth);
  const DeviceArray<float> values(table.values);
  DeviceArray<float> depth(pixels), lse(pixels), offset(pixels), result(2), dweight(bins * kC), dbias(bins);
  DeviceArray<float> dbias_below(kC);
  DeviceArray<bf16> dx(pixels * kC);
  DeviceArray<float> workspace(cuda::dpm_head_workspace<bf16>(shape, c.bins) / sizeof(float));
  const DpmTableView view = with_kl ? table.at(values.data()) : DpmTableView{};
  const float* target = with_kl ? dteacher.data() : nullptr;
  cuda::dpm_head<bf16>(cuda_stream(), {shape, c.bins, c.options, view}, {x.data(), weight.data(), bias.data()}, target,
                       {depth.data(), lse.data(), with_kl ? offset.data() : nullptr, with_kl ? result.data() : nullptr},
                       workspace.data());
  cuda::dpm_head_grad<bf16>(
      cuda_stream(), {shape, c.bins, c.options, view}, {x.data(), weight.data(), bias.data()},
      {target, depth.data(), lse.data(), offset.data(), result.data(), with_kl ? ddkl.data() : nullptr, dddepth.data()},
      {dx.data(), dweight.data(), dbias.data(), below, below != Activation::kNone ? dbias_below.data() : nullptr},
      workspace.data());
  return {depth.host(), lse.host(), result.host(), dweight.host(), dbias.host(), dbias_below.host(), dx.host()};
}

struct ExpectedGradients {
  std::vector<double> dx, dweight, dbias;
};

// The gradients follow from dlogits (pixels, channels).
ExpectedGradients expected_gradients(const Head& head, const std::vector<double>& dlogits, size_t channels) {
  const size_t bins = head.bias.size(), pixels = head.x.size() / kC;
  ExpectedGradients e{std::vector<double>(pixels * kC), std::vector<double>(bins * kC), std::vector<double>(bins)};
  for (size_t i = 0; i < pixels; ++i) {
    for (size_t b = 0; b < bins; ++b) {
      const double d = dlogits[i * channels + b];
      e.dbias[b] += d;
      for (size_t k = 0; k < kC; ++k) {
        e.dx[i * kC + k] += d * to_double(head.weight[b * kC + k]);
        e.dweight[b * kC + k] += d * to_double(head.x[i * kC + k]);
      }
    }
  }
  return e;
}

template <class T>
void expect_results(const Results<T>& r, const Expected& e, const ExpectedGradients& g) {
  EXPECT_LE(max_relative_error(r.depth, e.depth), 3e-6);
  EXPECT_LE(max_relative_error(r.lse, e.lse), 1e-6);
  EXPECT_NEAR(static_cast<double>(r.result[0]), e.kl, 2e-5 + 1e-5 * e.kl);
  EXPECT_NEAR(static_cast<double>(r.result[1]) * e.count, 1, 1e-6);
  // In bf16, dlogits are rounded before the products, and dx after.
  const double tolerance = std::is_same_v<T, bf16> ? 5e-3 : 5e-5;
  EXPECT_LE(max_relative_error(r.dx, g.dx), tolerance);
  EXPECT_LE(max_relative_error(r.dweight, g.dweight), tolerance);
  EXPECT_LE(max_relative_error(r.dbias, g.dbias), 1e-4);  // e^x is 2^(x log2 e), with a rounded exponent
}

TEST(DpmHeadKernel, MatchesTheFormulas) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const Targets p(c);
    const Head head(c.bins.bins, kPixels);
    const Expected e = expected_results(c, p, head.rows());
    const ExpectedGradients g = expected_gradients(head, e.dlogits, static_cast<size_t>(c.channels));
    const DpmShape shape{kN, kH, kW, kC};
    expect_results(run_cpu<float>(shape, c, head, p.teacher, &p.dkl, p.ddepth.data()), e, g);
    if (c.options.sigma > 4.0f) {
      EXPECT_THROW(run_cuda(shape, c, head, p.teacher, true, {p.dkl}, p.ddepth), Error);
      continue;
    }
    for_each_schedule([&] { expect_results(run_cuda(shape, c, head, p.teacher, true, {p.dkl}, p.ddepth), e, g); });
  }
}

TEST(DpmHeadKernel, DepthAlone) {
  const Case c{"depth alone", kKitti, DpmOptions{}, 257};
  Targets p(c);
  const Head head(c.bins.bins, kPixels);
  const auto rows = head.rows();
  std::vector<double> depth, dlogits;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Pixel pixel = reference(c, rows[i], target_of(c, 1.0f));
    depth.push_back(pixel.depth);
    for (int b = 0; b < c.bins.bins; ++b) {
      const double q = std::exp(rows[i][static_cast<size_t>(b)] - pixel.lse);
      dlogits.push_back(to_double(p.ddepth[i]) * q * (c.bins.centre(b) - pixel.depth));
    }
  }
  const ExpectedGradients g = expected_gradients(head, dlogits, 257);
  const DpmShape shape{kN, kH, kW, kC};
  const Results<float> r = run_cpu<float>(shape, c, head, p.teacher, nullptr, p.ddepth.data());
  EXPECT_LE(max_relative_error(r.depth, depth), 3e-6);
  EXPECT_LE(max_relative_error(r.dx, g.dx), 1e-5);
  EXPECT_LE(max_relative_error(r.dweight, g.dweight), 1e-5);
  EXPECT_LE(max_relative_error(r.dbias, g.dbias), 1e-5);
  for_each_schedule([&] {
    const Results<bf16> d = run_cuda(shape, c, head, p.teacher, false, {0.0f}, p.ddepth);
    EXPECT_LE(max_relative_error(d.depth, depth), 3e-6);
    EXPECT_LE(max_relative_error(d.dx, g.dx), 5e-3);
    EXPECT_LE(max_relative_error(d.dweight, g.dweight), 5e-3);
    EXPECT_LE(max_relative_error(d.dbias, g.dbias), 1e-5);
  });
}

// On the CPU the same kernels run on the same numbers, a few rows at a time: the same bits, but for the order of sums.
template <class T>
class DpmHeadOnCpu : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(DpmHeadOnCpu, Types);

TYPED_TEST(DpmHeadOnCpu, IsTheHeadAndTheLossInBlocksOfRows) {
  using T = TypeParam;
  const Case c{"several blocks", kKitti, DpmOptions{.first_row = 1}, 257};
  const DpmShape shape{1, 9, 801, kC};  // a row of logits is 0.4 or 0.8 MB
  const DpmShape map{1, 9, 801, 257};
  const size_t pixels = 9 * 801;
  const Head head(257, 9 * 801);
  const auto teacher = random_values<float>(pixels, 3, -5.0f, 79.0f), ddepth = random_values<float>(pixels, 4);
  const float dkl = 2.0f;
  const Results<T> fused = run_cpu<T>(shape, c, head, teacher, &dkl, ddepth.data());

  const int threads = num_threads();
  set_num_threads(threads == 1 ? 3 : 1);
  const Results<T> other = run_cpu<T>(shape, c, head, teacher, &dkl, ddepth.data());
  set_num_threads(threads);
  EXPECT_EQ(other.result, fused.result);
  EXPECT_EQ(other.dweight, fused.dweight);
  EXPECT_EQ(other.dbias, fused.dbias);

  const Conv2dShape conv{.N = 1, .H = 9, .W = 801, .C = kC, .O = 257};
  const DpmTable table = make_dpm_table(c.bins, c.options.target, c.options.sigma, c.options.floor);
  const auto x = head.x_as<T>();
  std::vector<T> logits(pixels * 257), dx(pixels * kC);
  std::vector<float> depth(pixels), lse(pixels), offset(pixels), result(2), dweight(257 * kC), dbias(257);
  cpu::conv2d(cpu_stream(), conv, Activation::kNone, x.data(), head.weight.data(), head.bias.data(), logits.data());
  cpu::dpm(cpu_stream(), {map, c.bins, c.options, table.view}, logits.data(), teacher.data(),
           {depth.data(), lse.data(), offset.data(), result.data()});
  cpu::dpm_grad(cpu_stream(), {map, c.bins, c.options, table.view},
                {teacher.data(), depth.data(), lse.data(), offset.data(), result.data(), &dkl, ddepth.data()},
                logits.data());
  cpu::conv2d_grad<T>(cpu_stream(), conv, Activation::kNone, x.data(), head.weight.data(), nullptr, logits.data(),
                      {dx.data(), dweight.data(), dbias.data()});
  EXPECT_EQ(fused.depth, depth);
  EXPECT_EQ(fused.lse, lse);
  EXPECT_EQ(fused.result, result);
  EXPECT_EQ(max_relative_error(fused.dx, dx), 0);
  EXPECT_LE(max_relative_error(fused.dweight, dweight), 1e-5);
  EXPECT_LE(max_relative_error(fused.dbias, dbias), 1e-5);
}

// Warps have several tiles to do, blocks several rounds: shared memory is used again. The sizes end within a tile.
TEST(DpmHeadKernelGrid, WarpsStrideOverPixels) {
  const Case c{"many pixels", kNyu, DpmOptions{.sigma = 0.2f, .first_row = 2}, 49};
  const DpmShape shape{1, 5, 85, kC};
  const size_t pixels = 5 * 85;
  const Head head(49, 5 * 85);
  const auto teacher = random_values<float>(pixels, 3, -1.0f, 9.5f), ddepth = random_values<float>(pixels, 4);
  const float dkl = 2.0f;
  const Results<float> expected = run_cpu<float>(shape, c, head, teacher, &dkl, ddepth.data());
  for_each_schedule([&] {
    const Results<bf16> r = run_cuda(shape, c, head, teacher, true, {dkl}, ddepth);
    EXPECT_LE(max_relative_error(r.depth, expected.depth), 2e-6);
    EXPECT_LE(max_relative_error(r.lse, expected.lse), 1e-6);
    EXPECT_LE(max_relative_error(r.result, expected.result), 1e-5);
    EXPECT_LE(max_relative_error(r.dx, expected.dx), 5e-3);
    EXPECT_LE(max_relative_error(r.dweight, expected.dweight), 5e-3);
    EXPECT_LE(max_relative_error(r.dbias, expected.dbias), 1e-5);
  });
}

// x is the output of an activation, whose slope dx is multiplied by.
TEST(DpmHeadKernel, GoesOnThroughTheActivationBelow) {
  const Case c{"below", kNyu, DpmOptions{.sigma = 0.2f}, 49};
  const DpmShape shape{1, 3, 23, kC};
  const size_t pixels = 3 * 23;
  Head head(49, 3 * 23);
  for (size_t i = 0; i < head.x.size(); i += 7) head.x[i] = bf16(6.0f);  // the value where relu6 ends
  const auto teacher = random_values<float>(pixels, 3, -1.0f, 9.5f), ddepth = random_values<float>(pixels, 4);
  const float dkl = 2.0f;
  const Results<float> plain = run_cpu<float>(shape, c, head, teacher, &dkl, ddepth.data());
  const Results<bf16> plain_cuda = run_cuda(shape, c, head, teacher, true, {dkl}, ddepth);
  for (const Activation below : {Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
    std::vector<double> dx, sums(kC);
    for (size_t i = 0; i < plain.dx.size(); ++i) {
      double slope = 0;
      visit(below, [&]<Activation kind>() {
        slope = static_cast<double>(activation_slope<kind>(static_cast<float>(head.x[i])));
      });
      dx.push_back(to_double(plain.dx[i]) * slope);
      sums[i % kC] += dx.back();
    }
    const Results<float> r = run_cpu<float>(shape, c, head, teacher, &dkl, ddepth.data(), below);
    EXPECT_LE(max_relative_error(r.dx, dx), 1e-6);
    EXPECT_LE(max_relative_error(r.dbias_below, sums), 1e-5);
    EXPECT_EQ(r.dweight, plain.dweight);
    for_each_schedule([&] {
      const Results<bf16> d = run_cuda(shape, c, head, teacher, true, {dkl}, ddepth, below);
      EXPECT_LE(max_relative_error(d.dx, dx), 5e-3);
      EXPECT_LE(max_relative_error(d.dbias_below, sums), 2e-2);  // terms of both signs, rounded before they are added
      EXPECT_EQ(d.dweight, plain_cuda.dweight);
    });
  }
}

TEST(DpmHeadKernel, NoCountedPixelGivesZero) {
  const Case c{"no pixel", kKitti, DpmOptions{}, 257};
  const Head head(257, kPixels);
  const std::vector<float> teacher(kPixels, 0.0f), no_gradient(kPixels, 0.0f);
  const float dkl = 1.0f;
  const auto expect_zeros = [](const auto& r) {
    EXPECT_EQ(r.result, std::vector<float>({0, 0}));
    EXPECT_EQ(max_relative_error(r.dx, std::vector<float>(r.dx.size(), 0.0f)), 0);
    EXPECT_EQ(max_relative_error(r.dweight, std::vector<float>(r.dweight.size(), 0.0f)), 0);
    EXPECT_EQ(max_relative_error(r.dbias, std::vector<float>(r.dbias.size(), 0.0f)), 0);
  };
  expect_zeros(run_cpu<float>({kN, kH, kW, kC}, c, head, teacher, &dkl, nullptr));
  expect_zeros(run_cuda({kN, kH, kW, kC}, c, head, teacher, true, {dkl}, no_gradient));
}

TEST(DpmHeadKernel, NaNReachesTheLoss) {
  const Case c{"NaN", kKitti, DpmOptions{.mask = false}, 257};
  const float nan = std::numeric_limits<float>::quiet_NaN(), dkl = 1.0f;
  for (const bool in_teacher : {true, false}) {
    Targets p(c);
    Head head(257, kPixels);
    if (in_teacher) p.teacher[7] = nan;
    if (!in_teacher) head.x[7 * kC + 100] = bf16(nan);
    EXPECT_TRUE(std::isnan(run_cpu<float>({kN, kH, kW, kC}, c, head, p.teacher, &dkl, nullptr).result[0]));
    EXPECT_TRUE(std::isnan(run_cuda({kN, kH, kW, kC}, c, head, p.teacher, true, {dkl}, p.ddepth).result[0]));
  }
}

TEST(DpmHeadKernel, SaysWhatItSupports) {
  const DpmBins bins{}, many{265, 1.0f, 2.0f};
  EXPECT_TRUE(cpu::dpm_head_supported<float>({1, 2, 3, 40}, many));
  EXPECT_TRUE(cuda::dpm_head_supported<bf16>({1, 2, 3, 128}, bins));
  EXPECT_FALSE(cuda::dpm_head_supported<bf16>({1, 2, 3, 64}, bins));
  EXPECT_FALSE(cuda::dpm_head_supported<bf16>({1, 2, 3, 128}, many));
  EXPECT_FALSE(cuda::dpm_head_supported<float>({1, 2, 3, 128}, bins));
  EXPECT_THROW(cuda::dpm_head<bf16>(cuda_stream(), {{1, 2, 3, 64}, bins, {}, {}}, {}, nullptr, {}, nullptr), Error);
}

}  // namespace
}  // namespace depthstill
