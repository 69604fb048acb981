#include <algorithm>
#include <functional>

#include "kernels/dpm.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

// ---- reference in double, straight from the formulas --------------------------------------------------------------

// Phi(b) - Phi(a) without cancellation in the tails.
double normal_mass(double a, double b) {
  if (a + b < 0) return normal_mass(-b, -a);
  const double root = std::sqrt(2.0);
  if (a <= 0) return 1 - 0.5 * std::erfc(-a / root) - 0.5 * std::erfc(b / root);
  return 0.5 * std::erfc(a / root) - 0.5 * std::erfc(b / root);
}

struct Case {
  const char* name;
  DpmBins bins;
  DpmOptions options;
  int64_t channels;
};

// t of every bin; of kMass without the floor.
std::vector<double> teacher_map(const DpmBins& bins, DpmTarget target, double sigma, double floor, double depth) {
  const double d = std::clamp(depth, static_cast<double>(bins.d_min), static_cast<double>(bins.d_max));
  std::vector<double> t(static_cast<size_t>(bins.bins));
  double sum = 0;
  for (int i = 0; i < bins.bins; ++i) {
    const double z = (bins.centre(i) - d) / sigma, half = bins.width() / sigma / 2;
    const double density = std::exp(-z * z / 2) / (sigma * std::sqrt(2 * M_PI));
    double& v = t[static_cast<size_t>(i)];
    v = target == DpmTarget::kMass ? normal_mass(z - half, z + half) : (density < floor ? 0 : std::exp(density));
    sum += v;
  }
  for (double& v : t) v /= sum;
  return t;
}

std::vector<double> target_of(const Case& c, float teacher) {
  return teacher_map(c.bins, c.options.target, static_cast<double>(c.options.sigma),
                     static_cast<double>(c.options.floor), static_cast<double>(teacher));
}

struct Pixel {
  double depth, lse, kl;
};

// t: teacher_map() of the pixel.
Pixel reference(const Case& c, const std::vector<double>& x, const std::vector<double>& t) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double v : x) sum += std::exp(v - largest);
  Pixel result{0, largest + std::log(sum), 0};
  const double floor = static_cast<double>(c.options.floor), eps = static_cast<double>(c.options.eps);
  for (size_t i = 0; i < x.size(); ++i) {
    const double log_q = x[i] - result.lse, q = std::exp(log_q);
    result.depth += q * c.bins.centre(static_cast<int>(i));
    if (c.options.kl == KlDirection::kStudentTeacher) {
      result.kl += q * (log_q - std::log(std::max(t[i], floor)));
    } else if (t[i] > floor) {
      result.kl += t[i] * (eps == 0 ? std::log(t[i]) - log_q : std::log(t[i] / (q + eps) + eps));
    }
  }
  return result;
}

// ---- problems -----------------------------------------------------------------------------------------------------

constexpr DpmBins kKitti{257, 1e-3f, 80.0f}, kNyu{49, 1e-3f, 10.0f};
constexpr auto kMass = DpmTarget::kMass;
constexpr auto kPdf = DpmTarget::kSoftmaxPdf;
constexpr auto kST = KlDirection::kStudentTeacher;
constexpr auto kTS = KlDirection::kTeacherStudent;

std::vector<Case> cases() {
  const auto options = [](DpmTarget target, KlDirection kl, float sigma, float eps, bool mask, int64_t first_row) {
    return DpmOptions{target, kl, sigma, 1e-16f, eps, mask, first_row};
  };
  return {
      {"default", kKitti, DpmOptions{}, 257},
      {"padded channels, rows left out", kKitti, options(kMass, kST, 0.5f, 1e-7f, true, 1), 264},
      {"narrow target", kKitti, options(kMass, kST, 0.1f, 1e-7f, true, 0), 264},
      {"wide target", kKitti, options(kMass, kST, 5.0f, 1e-7f, false, 2), 259},
      {"published", kKitti, options(kPdf, kTS, 0.5f, 1e-7f, false, 0), 257},
      {"published, other KL", kKitti, options(kPdf, kST, 0.8f, 1e-7f, true, 0), 264},
      {"plain forward KL", kKitti, options(kMass, kTS, 0.8f, 0.0f, true, 1), 264},
      {"forward KL with eps", kNyu, options(kMass, kTS, 0.15f, 1e-4f, true, 0), 49},
      {"indoor", kNyu, options(kPdf, kTS, 0.15f, 1e-7f, true, 0), 56},
      {"target wider than the range", {3, 1.0f, 2.0f}, options(kMass, kST, 0.9f, 1e-7f, true, 0), 3},
  };
}

constexpr int64_t kN = 2, kH = 3, kW = 5, kPixels = kN * kH * kW;

template <class T>
struct Problem {
  DpmShape shape;
  DpmTable table;
  std::vector<T> logits;
  std::vector<float> teacher, ddepth;
  float dkl = 1.7f;

  explicit Problem(const Case& c)
      : shape{kN, kH, kW, c.channels},
        table(make_dpm_table(c.bins, c.options.target, c.options.sigma, c.options.floor)),
        logits(random_values<T>(static_cast<size_t>(kPixels * c.channels), 5, -4.0f, 6.0f)),
        teacher(random_values<float>(kPixels, 6, c.bins.d_min, c.bins.d_max)),
        ddepth(random_values<float>(kPixels, 7, -0.02f, 0.03f)) {
    // The ends of the range and, where they are left out, values that count as holes.
    teacher[0] = c.bins.d_max;
    teacher[8] = c.bins.d_min;
    teacher[9] = static_cast<float>(c.bins.centre(1));
    ddepth[4] = 0.0f;
    if (c.options.mask) {
      teacher[4] = 0.0f;
      teacher[6] = std::numeric_limits<float>::quiet_NaN();
      teacher[12] = 2 * c.bins.d_max;
      teacher[13] = std::numeric_limits<float>::infinity();
      teacher[14] = -1.0f;
    }
  }

  std::vector<double> row(const Case& c, int64_t pixel) const {
    std::vector<double> x;
    for (int b = 0; b < c.bins.bins; ++b) x.push_back(to_double(logits[static_cast<size_t>(pixel * c.channels + b)]));
    return x;
  }
};

struct Expected {
  std::vector<double> depth, lse, dlogits;
  double kl = 0, count = 0;
};

template <class T>
Expected expected_results(const Case& c, const Problem<T>& p) {
  Expected e;
  std::vector<bool> counted;
  std::vector<std::vector<double>> targets;
  for (int64_t i = 0; i < kPixels; ++i) {
    const float teacher = p.teacher[static_cast<size_t>(i)];
    const bool valid = std::isfinite(teacher) && teacher > 0 && teacher < 1.1f * c.bins.d_max;
    counted.push_back(i / kW % kH >= c.options.first_row && (valid || !c.options.mask));
    targets.push_back(target_of(c, counted.back() ? teacher : c.bins.d_min));
    const Pixel pixel = reference(c, p.row(c, i), targets.back());
    e.depth.push_back(pixel.depth);
    e.lse.push_back(pixel.lse);
    e.kl += counted.back() ? pixel.kl : 0;
    e.count += counted.back();
  }
  e.kl /= e.count;
  // The gradient by central differences of the reference itself.
  for (int64_t i = 0; i < kPixels; ++i) {
    auto x = p.row(c, i);
    const double a = counted[static_cast<size_t>(i)] ? static_cast<double>(p.dkl) / e.count : 0;
    const double gd = static_cast<double>(p.ddepth[static_cast<size_t>(i)]);
    const auto value = [&] {
      const Pixel pixel = reference(c, x, targets[static_cast<size_t>(i)]);
      return a * pixel.kl + gd * pixel.depth;
    };
    for (int64_t b = 0; b < c.channels; ++b) {
      double slope = 0;
      if (b < c.bins.bins) {
        double& v = x[static_cast<size_t>(b)];
        const double at = v, step = 1e-4;
        v = at + step;
        slope = value();
        v = at - step;
        slope = (slope - value()) / (2 * step);
        v = at;
      }
      e.dlogits.push_back(slope);
    }
  }
  return e;
}

// ---- tests --------------------------------------------------------------------------------------------------------

template <class T>
class DpmKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(DpmKernel, Types);

TYPED_TEST(DpmKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const Problem<T> p(c);
    const Expected e = expected_results(c, p);
    const auto expect = [&](const std::vector<float>& depth, const std::vector<float>& lse,
                            const std::vector<float>& result, const std::vector<T>& dlogits) {
      EXPECT_LE(max_relative_error(depth, e.depth), 2e-6);
      EXPECT_LE(max_relative_error(lse, e.lse), 1e-6);
      EXPECT_NEAR(static_cast<double>(result[0]), e.kl, 2e-5 + 1e-5 * e.kl);
      EXPECT_NEAR(static_cast<double>(result[1]) * e.count, 1, 1e-6);
      EXPECT_LE(max_relative_error(dlogits, e.dlogits), (std::is_same_v<T, bf16> ? 4e-3 : 5e-5));
    };
    auto depth = nan_values<float>(kPixels), lse = depth, offset = depth, result = nan_values<float>(2);
    auto logits = p.logits;
    cpu::dpm(cpu_stream(), p.shape, c.bins, c.options, p.table.view, p.logits.data(), p.teacher.data(), depth.data(),
             lse.data(), offset.data(), result.data());
    cpu::dpm_grad(cpu_stream(), p.shape, c.bins, c.options, p.table.view, p.teacher.data(), depth.data(), lse.data(),
                  offset.data(), result.data(), &p.dkl, p.ddepth.data(), logits.data());
    expect(depth, lse, result, logits);

    for_each_schedule([&] {
      DeviceArray<T> dlogits(p.logits);
      const DeviceArray<float> dteacher(p.teacher), dddepth(p.ddepth), ddkl(std::vector<float>{p.dkl});
      const DeviceArray<float> values(p.table.values);
      DeviceArray<float> ddepth(kPixels), dlse(kPixels), doffset(kPixels), dresult(2);
      const DpmTableView table = p.table.at(values.data());
      cuda::dpm(cuda_stream(), p.shape, c.bins, c.options, table, dlogits.data(), dteacher.data(), ddepth.data(),
                dlse.data(), doffset.data(), dresult.data());
      cuda::dpm_grad(cuda_stream(), p.shape, c.bins, c.options, table, dteacher.data(), ddepth.data(), dlse.data(),
                     doffset.data(), dresult.data(), ddkl.data(), dddepth.data(), dlogits.data());
      expect(ddepth.host(), dlse.host(), dresult.host(), dlogits.host());
    });
  }
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
  cpu::dpm<T>(cpu_stream(), p.shape, c.bins, c.options, {}, p.logits.data(), nullptr, depth.data(), lse.data(), nullptr,
              nullptr);
  cpu::dpm_grad<T>(cpu_stream(), p.shape, c.bins, c.options, {}, nullptr, depth.data(), lse.data(), nullptr, nullptr,
                   nullptr, p.ddepth.data(), logits.data());
  EXPECT_LE(max_relative_error(depth, e.depth), 2e-6);
  EXPECT_LE(max_relative_error(logits, e.dlogits), tolerance);

  for_each_schedule([&] {
    DeviceArray<T> dlogits(p.logits);
    const DeviceArray<float> dddepth(p.ddepth);
    DeviceArray<float> ddepth(kPixels), dlse(kPixels);
    cuda::dpm<T>(cuda_stream(), p.shape, c.bins, c.options, {}, dlogits.data(), nullptr, ddepth.data(), dlse.data(),
                 nullptr, nullptr);
    cuda::dpm_grad<T>(cuda_stream(), p.shape, c.bins, c.options, {}, nullptr, ddepth.data(), dlse.data(), nullptr,
                      nullptr, nullptr, dddepth.data(), dlogits.data());
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
  cpu::dpm(cpu_stream(), p.shape, c.bins, c.options, p.table.view, p.logits.data(), p.teacher.data(), depth.data(),
           lse.data(), offset.data(), result.data());
  EXPECT_EQ(result, std::vector<float>({0, 0}));
  cpu::dpm_grad<T>(cpu_stream(), p.shape, c.bins, c.options, p.table.view, p.teacher.data(), depth.data(), lse.data(),
                   offset.data(), result.data(), &p.dkl, nullptr, p.logits.data());
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
  cpu::dpm(cpu_stream(), shape, c.bins, c.options, table.view, logits.data(), teacher.data(), depth.data(), lse.data(),
           offset.data(), result.data());
  cpu::dpm_grad<float>(cpu_stream(), shape, c.bins, c.options, table.view, teacher.data(), depth.data(), lse.data(),
                       offset.data(), result.data(), dkl.data(), nullptr, dlogits.data());

  DeviceArray<float> device_logits(logits), ddepth(pixels), dlse(pixels), doffset(pixels), dresult(2);
  const DeviceArray<float> dteacher(teacher), ddkl(dkl), values(table.values);
  cuda::dpm(cuda_stream(), shape, c.bins, c.options, table.at(values.data()), device_logits.data(), dteacher.data(),
            ddepth.data(), dlse.data(), doffset.data(), dresult.data());
  cuda::dpm_grad<float>(cuda_stream(), shape, c.bins, c.options, table.at(values.data()), dteacher.data(),
                        ddepth.data(), dlse.data(), doffset.data(), dresult.data(), ddkl.data(), nullptr,
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
    cpu::dpm(cpu_stream(), p.shape, c.bins, c.options, p.table.view, p.logits.data(), p.teacher.data(), depth.data(),
             lse.data(), offset.data(), result.data());
    EXPECT_TRUE(std::isnan(result[0]));
    const DeviceArray<float> dlogits(p.logits), dteacher(p.teacher), values(p.table.values);
    DeviceArray<float> ddepth(kPixels), dlse(kPixels), doffset(kPixels), dresult(std::vector<float>(2, 0.0f));
    cuda::dpm(cuda_stream(), p.shape, c.bins, c.options, p.table.at(values.data()), dlogits.data(), dteacher.data(),
              ddepth.data(), dlse.data(), doffset.data(), dresult.data());
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
    double tolerance;  // of log t: blending and the rounding of entries near -37 (kMass) or 0
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
    double mean[5];  // of t at 2, 5, 10, 40 and 76 m
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
