#include "kernels/dpm/dpm.h"
#include "tests/kernels/dpm_reference.h"

namespace depthstill {
namespace {

using namespace dpm_test;

template <class T>
struct Problem : Targets {
  DpmShape shape;
  DpmTable table;
  std::vector<T> logits;

  explicit Problem(const Case& c, float low = -4.0f, float high = 6.0f)
      : Targets(c),
        shape{kN, kH, kW, c.channels},
        table(make_dpm_table(c.bins, c.options.target, c.options.sigma, c.options.floor)),
        logits(random_values<T>(static_cast<size_t>(kPixels * c.channels), 5, low, high)) {}

  std::vector<double> row(const Case& c, int64_t pixel) const {
    std::vector<double> x;
    for (int b = 0; b < c.bins.bins; ++b) x.push_back(to_double(logits[static_cast<size_t>(pixel * c.channels + b)]));
    return x;
  }
  std::vector<std::vector<double>> rows(const Case& c) const {
    std::vector<std::vector<double>> all;
    for (int64_t i = 0; i < kPixels; ++i) all.push_back(row(c, i));
    return all;
  }
};

template <class T>
class DpmKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(DpmKernel, Types);

// Both sides against the formulas. `exponents`: how far the exponents of the CUDA kernels, x log2 e in float, may be
// off by their size, which shows where a softmax that is sure leaves a gradient of small differences.
template <class T>
void expect_matches(const Case& c, const Problem<T>& p, double exponents = 0) {
  SCOPED_TRACE(c.name);
  const Expected e = expected_results(c, p, p.rows(c));
  const auto expect = [&](const std::vector<float>& depth, const std::vector<float>& lse,
                          const std::vector<float>& result, const std::vector<T>& dlogits, double more) {
    EXPECT_LE(max_relative_error(depth, e.depth), 4e-6);
    EXPECT_LE(max_relative_error(lse, e.lse), 1e-6);
    EXPECT_NEAR(static_cast<double>(result[0]), e.kl, 2e-5 + 1e-5 * e.kl);
    EXPECT_NEAR(static_cast<double>(result[1]) * e.count, 1, 1e-6);
    EXPECT_LE(max_relative_error(dlogits, e.dlogits), (std::is_same_v<T, bf16> ? 4e-3 : 5e-5) + more);
  };
  auto depth = nan_values<float>(kPixels), lse = depth, offset = depth, result = nan_values<float>(2);
  auto logits = p.logits;
  cpu::dpm(cpu_stream(), {p.shape, c.bins, c.options, p.table.view}, p.logits.data(), p.teacher.data(),
           {depth.data(), lse.data(), offset.data(), result.data()});
  cpu::dpm_grad(cpu_stream(), {p.shape, c.bins, c.options, p.table.view},
                {p.teacher.data(), depth.data(), lse.data(), offset.data(), result.data(), &p.dkl, p.ddepth.data()},
                logits.data());
  expect(depth, lse, result, logits, 0);
  for (const T v : logits) EXPECT_TRUE(to_double(v) == 0.0 || std::abs(to_double(v)) >= 0x1p-126) << to_double(v);

  for_each_schedule([&] {
    DeviceArray<T> dlogits(p.logits);
    const DeviceArray<float> dteacher(p.teacher), dddepth(p.ddepth), ddkl(std::vector<float>{p.dkl});
    const DeviceArray<float> values(p.table.values);
    DeviceArray<float> ddepth(kPixels), dlse(kPixels), doffset(kPixels), dresult(2);
    const DpmTableView table = p.table.at(values.data());
    cuda::dpm(cuda_stream(), {p.shape, c.bins, c.options, table}, dlogits.data(), dteacher.data(),
              {ddepth.data(), dlse.data(), doffset.data(), dresult.data()});
    cuda::dpm_grad(
        cuda_stream(), {p.shape, c.bins, c.options, table},
        {dteacher.data(), ddepth.data(), dlse.data(), doffset.data(), dresult.data(), ddkl.data(), dddepth.data()},
        dlogits.data());
    expect(ddepth.host(), dlse.host(), dresult.host(), dlogits.host(), exponents);
  });
}

TYPED_TEST(DpmKernel, MatchesTheFormulas) {
  for (const Case& c : cases()) expect_matches(c, Problem<TypeParam>(c));
}

// More than a lane of the GPU keeps in registers, with and without a rest that fills no pack.
TYPED_TEST(DpmKernel, ManyBins) {
  for (const Case& c : {Case{"600", {600, 1e-3f, 80.0f}, DpmOptions{.sigma = 0.3f}, 600},
                        {"521 of 528", {521, 1e-3f, 80.0f}, DpmOptions{.kl = KlDirection::kStudentTeacher}, 528}}) {
    expect_matches(c, Problem<TypeParam>(c));
  }
}

// Probabilities down to e^-99, which is no float: all is as exact as ever, and no denormal number is left.
TYPED_TEST(DpmKernel, LogitsFarApart) {
  for (const Case& c : cases()) expect_matches(c, Problem<TypeParam>(c, -50.0f, 49.0f), 5e-4);
  volatile float small = 1e-30f;
  EXPECT_GT(small * 1e-10f, 0.0f) << "denormal numbers are still flushed";
}

TYPED_TEST(DpmKernel, DepthAlone) {
  using T = TypeParam;
  const Case c{"depth alone", kKitti, DpmOptions{}, 264};
  const Problem<T> p(c);
  Expected e;
  for (int64_t i = 0; i < kPixels; ++i) {
    const auto x = p.row(c, i);
    const Pixel pixel = reference(c, x, target_of(c, 1.0f));
    e.depth.push_back(pixel.depth);
    for (int b = 0; b < c.channels; ++b) {
      const double q = b < c.bins.bins ? std::exp(x[static_cast<size_t>(b)] - pixel.lse) : 0;
      e.dlogits.push_back(static_cast<double>(p.ddepth[static_cast<size_t>(i)]) * q * (c.bins.centre(b) - pixel.depth));
    }
  }
  const double tolerance = std::is_same_v<T, bf16> ? 4e-3 : 5e-6;
  auto depth = nan_values<float>(kPixels), lse = depth;
  auto logits = p.logits;
  cpu::dpm<T>(cpu_stream(), {p.shape, c.bins, c.options, {}}, p.logits.data(), nullptr, {depth.data(), lse.data()});
  cpu::dpm_grad<T>(cpu_stream(), {p.shape, c.bins, c.options, {}},
                   {.depth = depth.data(), .lse = lse.data(), .ddepth = p.ddepth.data()}, logits.data());
  EXPECT_LE(max_relative_error(depth, e.depth), 2e-6);
  EXPECT_LE(max_relative_error(logits, e.dlogits), tolerance);

  for_each_schedule([&] {
    DeviceArray<T> dlogits(p.logits);
    const DeviceArray<float> dddepth(p.ddepth);
    DeviceArray<float> ddepth(kPixels), dlse(kPixels);
    cuda::dpm<T>(cuda_stream(), {p.shape, c.bins, c.options, {}}, dlogits.data(), nullptr,
                 {ddepth.data(), dlse.data()});
    cuda::dpm_grad<T>(cuda_stream(), {p.shape, c.bins, c.options, {}},
                      {.depth = ddepth.data(), .lse = dlse.data(), .ddepth = dddepth.data()}, dlogits.data());
    EXPECT_LE(max_relative_error(ddepth.host(), e.depth), 2e-6);
    EXPECT_LE(max_relative_error(dlogits.host(), e.dlogits), tolerance);
  });
}

TYPED_TEST(DpmKernel, NoCountedPixelGivesZero) {
  using T = TypeParam;
  const Case c{"no pixel", kKitti, DpmOptions{}, 257};
  Problem<T> p(c);
  std::fill(p.teacher.begin(), p.teacher.end(), 0.0f);
  auto depth = nan_values<float>(kPixels), lse = depth, offset = depth, result = nan_values<float>(2);
  cpu::dpm(cpu_stream(), {p.shape, c.bins, c.options, p.table.view}, p.logits.data(), p.teacher.data(),
           {depth.data(), lse.data(), offset.data(), result.data()});
  EXPECT_EQ(result, std::vector<float>({0, 0}));
  cpu::dpm_grad<T>(cpu_stream(), {p.shape, c.bins, c.options, p.table.view},
                   {p.teacher.data(), depth.data(), lse.data(), offset.data(), result.data(), &p.dkl}, p.logits.data());
  EXPECT_EQ(max_relative_error(p.logits, std::vector<float>(p.logits.size(), 0.0f)), 0);
}

// Every warp has several pixels to do: its shared memory is used again.
TEST(DpmKernelGrid, WarpsStrideOverPixels) {
  const Case c{"many pixels", {5, 1.0f, 2.0f}, DpmOptions{.sigma = 0.2f}, 5};
  const DpmShape shape{1, 5, 3301, c.channels};
  const auto pixels = static_cast<size_t>(shape.H * shape.W);
  const DpmTable table = make_dpm_table(c.bins, c.options.target, c.options.sigma, c.options.floor);
  const auto logits = random_values<float>(pixels * 5, 1), teacher = random_values<float>(pixels, 2, 1.0f, 2.0f);
  const std::vector<float> dkl{1.0f};
  auto depth = nan_values<float>(pixels), lse = depth, offset = depth, result = nan_values<float>(2), dlogits = logits;
  cpu::dpm(cpu_stream(), {shape, c.bins, c.options, table.view}, logits.data(), teacher.data(),
           {depth.data(), lse.data(), offset.data(), result.data()});
  cpu::dpm_grad<float>(cpu_stream(), {shape, c.bins, c.options, table.view},
                       {teacher.data(), depth.data(), lse.data(), offset.data(), result.data(), dkl.data()},
                       dlogits.data());

  DeviceArray<float> device_logits(logits), ddepth(pixels), dlse(pixels), doffset(pixels), dresult(2);
  const DeviceArray<float> dteacher(teacher), ddkl(dkl), values(table.values);
  cuda::dpm(cuda_stream(), {shape, c.bins, c.options, table.at(values.data())}, device_logits.data(), dteacher.data(),
            {ddepth.data(), dlse.data(), doffset.data(), dresult.data()});
  cuda::dpm_grad<float>(cuda_stream(), {shape, c.bins, c.options, table.at(values.data())},
                        {dteacher.data(), ddepth.data(), dlse.data(), doffset.data(), dresult.data(), ddkl.data()},
                        device_logits.data());
  EXPECT_LE(max_relative_error(dresult.host(), result), 1e-6);
  EXPECT_LE(max_relative_error(device_logits.host(), dlogits), 1e-5);
}

TEST(DpmKernelNaN, ReachesTheLoss) {
  const Case c{"NaN", kKitti, DpmOptions{.kl = kTS, .mask = false}, 257};
  for (const bool in_teacher : {true, false}) {
    Problem<float> p(c);
    (in_teacher ? p.teacher[7] : p.logits[7 * 257 + 250]) = std::numeric_limits<float>::quiet_NaN();
    auto depth = nan_values<float>(kPixels), lse = depth, offset = depth;
    std::vector<float> result(2);
    cpu::dpm(cpu_stream(), {p.shape, c.bins, c.options, p.table.view}, p.logits.data(), p.teacher.data(),
             {depth.data(), lse.data(), offset.data(), result.data()});
    EXPECT_TRUE(std::isnan(result[0]));
    const DeviceArray<float> dlogits(p.logits), dteacher(p.teacher), values(p.table.values);
    DeviceArray<float> ddepth(kPixels), dlse(kPixels), doffset(kPixels), dresult(std::vector<float>(2, 0.0f));
    cuda::dpm(cuda_stream(), {p.shape, c.bins, c.options, p.table.at(values.data())}, dlogits.data(), dteacher.data(),
              {ddepth.data(), dlse.data(), doffset.data(), dresult.data()});
    EXPECT_TRUE(std::isnan(dresult.host()[0]));
  }
}

// ---- the table ----------------------------------------------------------------------------------------------------

// t of all bins as the kernels read it.
std::vector<double> table_map(const DpmBins& bins, const DpmTable& table, float depth) {
  const DpmWindow window = locate(table.view, bins.bins, depth);
  std::vector<double> t(static_cast<size_t>(bins.bins));
  double sum = 0;
  for (int j = window.lo; j <= window.hi; ++j) {
    const float v = blended(window, table.view.columns, j) - window.log_norm;
    t[static_cast<size_t>(window.first + j)] = std::exp(static_cast<double>(v));
    sum += std::exp(static_cast<double>(v));
  }
  if (table.view.target == DpmTarget::kSoftmaxPdf) {
    for (double& v : t) v /= sum;
  }
  return t;
}

TEST(DpmTable, LogTargetsAreAccurate) {
  struct Row {
    DpmBins bins;
    DpmTarget target;
    float sigma;
    double tolerance;  // error of log t: blending and the rounding of entries near -37 (kMass) or 0
  };
  for (const Row& row : {Row{kKitti, kMass, 0.8f, 2e-5}, Row{kKitti, kMass, 0.5f, 2e-5}, Row{kKitti, kMass, 0.1f, 2e-5},
                         Row{kKitti, kMass, 5.0f, 2e-5}, Row{kNyu, kMass, 0.15f, 2e-5}, Row{kKitti, kPdf, 0.8f, 1e-5},
                         Row{kKitti, kPdf, 0.5f, 1e-5}, Row{kKitti, kPdf, 0.1f, 2e-5}, Row{kNyu, kPdf, 0.15f, 2e-5}}) {
    SCOPED_TRACE(::testing::Message() << (row.target == kMass ? "mass" : "softmax_pdf") << " sigma " << row.sigma);
    const DpmTable table = make_dpm_table(row.bins, row.target, row.sigma, 1e-16f);
    double worst = 0;
    int differing_bins = 0, pixels = 0;
    for (const float depth : random_values<float>(3000, 9, row.bins.d_min, row.bins.d_max)) {
      const auto expected =
          teacher_map(row.bins, row.target, static_cast<double>(row.sigma), 1e-16, static_cast<double>(depth));
      const auto actual = table_map(row.bins, table, depth);
      bool same = true;
      for (size_t i = 0; i < expected.size(); ++i) {
        if (row.target == kPdf) same = same && (actual[i] > 0) == (expected[i] > 0);
        if (expected[i] > 1.0001e-16) worst = std::max(worst, std::abs(std::log(actual[i]) - std::log(expected[i])));
      }
      differing_bins += !same;
      ++pixels;
    }
    EXPECT_LE(worst, row.tolerance);
    EXPECT_EQ(differing_bins, 0) << "of " << pixels;
    EXPECT_LE(table.values.size() * sizeof(float), size_t{72} << 10);
  }
}

// Values measured from the published formula, and from Eq. 2.
TEST(DpmTable, GoldenNumbers) {
  struct Row {
    DpmTarget target;
    float sigma;
    double half_window;  // metres; 0: not given
    int min_bins, max_bins;
    double min_peak, max_peak, entropy;
    double mean[5];  // means of t at 2, 5, 10, 40 and 76 m
  };
  const Row rows[] = {
      {kPdf, 0.8f, 6.80, 43, 44, 0.034, 0.036, 3.77, {4.08, 5.83, 9.97, 40.0, 74.7}},
      {kPdf, 0.5f, 4.28, 27, 28, 0.067, 0.071, 3.27, {2.92, 4.98, 9.97, 40.0, 75.8}},
      {kPdf, 0.1f, 0.87, 5, 7, 0.4, 0.931, 0, {2.02, 5.01, 10.03, 40.0, 76.0}},
      {kMass, 0.8f, 0, 43, 44, 0.150, 0.156, 2.37, {2.01, 5.00, 10.0, 40.0, 76.0}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(::testing::Message() << (row.target == kMass ? "mass" : "softmax_pdf") << " sigma " << row.sigma);
    const DpmTable table = make_dpm_table(kKitti, row.target, row.sigma, 1e-16f);
    if (row.half_window > 0) {
      EXPECT_NEAR(table.view.half_window * kKitti.width(), row.half_window, 0.005);
    }
    const float depths[] = {2, 5, 10, 40, 76};
    for (size_t k = 0; k < 5; ++k) {
      const auto t = table_map(kKitti, table, depths[k]);
      double mean = 0, entropy = 0, peak = 0;
      int on = 0;
      for (int i = 0; i < kKitti.bins; ++i) {
        const double v = t[static_cast<size_t>(i)];
        mean += v * kKitti.centre(i);
        entropy -= v > 0 ? v * std::log(v) : 0;
        peak = std::max(peak, v);
        on += v > 1e-16;
      }
      // The last digit given.
      EXPECT_NEAR(mean, row.mean[k], row.mean[k] < 30 ? 0.006 : 0.06) << depths[k] << " m";
      if (depths[k] != 40) continue;
      EXPECT_GE(on, row.min_bins);
      EXPECT_LE(on, row.max_bins);
      EXPECT_GE(peak, row.min_peak);
      EXPECT_LE(peak, row.max_peak);
      if (row.entropy > 0) {
        EXPECT_NEAR(entropy, row.entropy, 0.03);
      }
    }
  }
}

TEST(DpmTable, RejectsBadOptions) {
  EXPECT_THROW(make_dpm_table(kKitti, kMass, 0.0f, 1e-16f), Error);
  EXPECT_THROW(make_dpm_table(kKitti, kMass, NAN, 1e-16f), Error);
  EXPECT_THROW(make_dpm_table(kKitti, kMass, 0.8f, 0.0f), Error);
  EXPECT_THROW(make_dpm_table({0, 1e-3f, 80.0f}, kMass, 0.8f, 1e-16f), Error);
  EXPECT_THROW(make_dpm_table({257, 80.0f, 80.0f}, kMass, 0.8f, 1e-16f), Error);
}

}  // namespace
}  // namespace depthstill
