#include "kernels/ssim.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

struct Case {
  const char* name;
  DepthMapShape shape;
  SsimMode mode;
  bool mask;
  bool anti_correlated;
};

constexpr auto kCentred = SsimMode::kCentred;
constexpr auto kReference = SsimMode::kReference;

const Case kCases[] = {
    {"one pixel", {1, 1, 1, 0}, kCentred, false, false},
    {"smaller than a window", {1, 3, 7, 0}, kReference, false, false},
    {"batch, tile tails", {2, 19, 35, 0}, kCentred, false, false},
    {"rows left out", {2, 18, 13, 4}, kReference, false, false},
    {"anti-correlated", {1, 15, 17, 0}, kCentred, false, true},
    {"anti-correlated, published", {1, 15, 17, 0}, kReference, false, true},
    {"holes", {2, 17, 34, 1}, kCentred, true, false},
};

// Depth between 2 and 70 m with a jump, as at an object's edge, and nearly flat parts.
struct Problem {
  std::vector<float> x, y, dloss{1.3f};

  explicit Problem(const Case& c) {
    const auto n = static_cast<size_t>(c.shape.N * c.shape.H * c.shape.W);
    const auto noise = random_values<float>(n, 3), other = random_values<float>(n, 4);
    for (size_t i = 0; i < n; ++i) {
      const auto col = static_cast<int64_t>(i) % c.shape.W;
      const float base = col < c.shape.W * 2 / 3 ? 60.0f : 4.0f + 0.3f * static_cast<float>(col);
      x.push_back(base + 0.03f * noise[i]);
      y.push_back(base + (c.anti_correlated ? -0.03f : 0.03f) * noise[i] + 0.02f * other[i]);
    }
    if (!c.mask) return;
    for (size_t i = 0; i < n; i += 7) y[i] = 0.0f;
    y[n / 2] = std::numeric_limits<float>::quiet_NaN();
  }
};

// One window in double, without separation, moments about the means.
class Reference {
 public:
  Reference(const Case& c, const Problem& p) : c_(c), p_(p), x_(p.x.begin(), p.x.end()) {
    double sum = 0;
    for (int k = 0; k < 11; ++k) sum += taps_[k] = std::exp(-(k - 5) * (k - 5) / 4.5);
    for (double& tap : taps_) tap /= sum;
  }

  bool counts(int64_t n, int64_t row, int64_t col) const {
    if (row < c_.shape.first_row || row >= c_.shape.H || col < 0 || col >= c_.shape.W) return false;
    const float target = p_.y[at(n, row, col)];
    return !c_.mask || (target > 0 && std::isfinite(target));
  }
  size_t at(int64_t n, int64_t row, int64_t col) const {
    return static_cast<size_t>((n * c_.shape.H + row) * c_.shape.W + col);
  }
  double& x(size_t i) { return x_[i]; }

  double similarity(int64_t n, int64_t row, int64_t col) const {
    double m[5] = {0, 0, 0, 0, 0};
    for (int pass = 0; pass < 2; ++pass) {
      for (int r = 0; r < 11; ++r) {
        for (int k = 0; k < 11; ++k) {
          const bool in = counts(n, row + r - 5, col + k - 5);
          const size_t i = in ? at(n, row + r - 5, col + k - 5) : 0;
          const double weight = taps_[r] * taps_[k], u = in ? x_[i] : 0, v = in ? static_cast<double>(p_.y[i]) : 0;
          if (pass == 0) {
            m[0] += weight * u;
            m[1] += weight * v;
          } else {
            m[2] += weight * (u - m[0]) * (u - m[0]);
            m[3] += weight * (v - m[1]) * (v - m[1]);
            m[4] += weight * (u - m[0]) * (v - m[1]);
          }
        }
      }
    }
    const double covariance = c_.mode == kReference ? std::abs(m[4]) : m[4];
    return (2 * m[0] * m[1] + 1e-4) * (2 * covariance + 9e-4) /
           ((m[0] * m[0] + m[1] * m[1] + 1e-4) * (m[2] + m[3] + 9e-4));
  }

  // Sum of S over the counted windows that see pixel (row, col).
  double sum_around(int64_t n, int64_t row, int64_t col) const {
    double sum = 0;
    for (int64_t r = row - 5; r <= row + 5; ++r) {
      for (int64_t k = col - 5; k <= col + 5; ++k) sum += counts(n, r, k) ? similarity(n, r, k) : 0;
    }
    return sum;
  }

 private:
  const Case& c_;
  const Problem& p_;
  std::vector<double> x_;
  double taps_[11];
};

TEST(SsimKernel, MatchesTheFormulas) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const Problem p(c);
    Reference reference(c, p);
    const size_t size = p.x.size();
    std::vector<double> gradient(size);
    double sum = 0, count = 0;
    for (int64_t n = 0; n < c.shape.N; ++n) {
      for (int64_t row = 0; row < c.shape.H; ++row) {
        for (int64_t col = 0; col < c.shape.W; ++col) {
          if (!reference.counts(n, row, col)) continue;
          sum += reference.similarity(n, row, col);
          count += 1;
          double& x = reference.x(reference.at(n, row, col));
          const double before = x, step = 1e-3;
          double slope = 0;  // five points: windows without texture are curved at the scale of 0.03 m
          for (const auto& [steps, weight] :
               {std::pair(-2, 1.0), std::pair(-1, -8.0), std::pair(1, 8.0), std::pair(2, -1.0)}) {
            x = before + steps * step;
            slope += weight * reference.sum_around(n, row, col);
          }
          x = before;
          gradient[reference.at(n, row, col)] = slope / (12 * step);
        }
      }
    }
    for (double& g : gradient) g *= -static_cast<double>(p.dloss[0]) / count;
    const auto expect = [&](const std::vector<float>& result, const std::vector<float>& dx, double tolerance) {
      EXPECT_NEAR(static_cast<double>(result[0]), 1 - sum / count, tolerance);
      EXPECT_NEAR(static_cast<double>(result[1]) * count, 1, 1e-6);
      EXPECT_LE(max_relative_error(dx, gradient), tolerance);
    };
    auto result = nan_values<float>(2), dx = nan_values<float>(size);
    cpu::ssim(cpu_stream(), c.shape, c.mode, c.mask, p.x.data(), p.y.data(), dx.data(), result.data());
    cpu::ssim_grad(cpu_stream(), static_cast<int64_t>(size), result.data(), p.dloss.data(), dx.data());
    expect(result, dx, 1e-6);

    for_each_schedule([&] {
      const DeviceArray<float> x(p.x), y(p.y), dloss(p.dloss);
      DeviceArray<float> device_result(2), device_dx(size);
      cuda::ssim(cuda_stream(), c.shape, c.mode, c.mask, x.data(), y.data(), device_dx.data(), device_result.data());
      cuda::ssim_grad(cuda_stream(), static_cast<int64_t>(size), device_result.data(), dloss.data(), device_dx.data());
      // A mean of 60 m is rounded to 4e-6 m, and S changes by up to 1e3 per metre in flat windows.
      expect(device_result.host(), device_dx.host(), 1e-3);
    });
  }
}

TEST(SsimKernel, ValueAlone) {
  const Case c{"value", {2, 23, 29, 2}, kCentred, false, false};
  const Problem p(c);
  auto result = nan_values<float>(2), value = result, dx = nan_values<float>(p.x.size());
  cpu::ssim(cpu_stream(), c.shape, c.mode, c.mask, p.x.data(), p.y.data(), dx.data(), result.data());
  cpu::ssim(cpu_stream(), c.shape, c.mode, c.mask, p.x.data(), p.y.data(), nullptr, value.data());
  EXPECT_EQ(value, result);
  for_each_schedule([&] {
    const DeviceArray<float> x(p.x), y(p.y);
    DeviceArray<float> device_value(2);
    cuda::ssim(cuda_stream(), c.shape, c.mode, c.mask, x.data(), y.data(), nullptr, device_value.data());
    EXPECT_LE(max_relative_error(device_value.host(), value), 1e-4);
  });
}

TEST(SsimKernel, EqualMapsGiveZero) {
  const DepthMapShape shape{1, 12, 14, 0};
  const auto x = random_values<float>(12 * 14, 8, 1.0f, 80.0f);
  auto result = nan_values<float>(2), dx = nan_values<float>(x.size());
  cpu::ssim(cpu_stream(), shape, kCentred, false, x.data(), x.data(), dx.data(), result.data());
  EXPECT_NEAR(result[0], 0.0f, 1e-7f);
  for (const float d : dx) EXPECT_NEAR(d, 0.0f, 1e-6f);
}

TEST(SsimKernel, NothingCountedGivesZero) {
  const DepthMapShape shape{1, 12, 14, 0};
  const std::vector<float> x(12 * 14, 3.0f), y(12 * 14, 0.0f);
  auto result = nan_values<float>(2), dx = nan_values<float>(x.size());
  cpu::ssim(cpu_stream(), shape, kCentred, true, x.data(), y.data(), dx.data(), result.data());
  EXPECT_EQ(result, std::vector<float>({0, 0}));
  EXPECT_EQ(dx, y);
}

}  // namespace
}  // namespace depthstill
