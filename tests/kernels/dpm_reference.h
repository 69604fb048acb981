// The tests of the kernels of depth probability maps, dpm and dpm_head, share this reference and these problems.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/dpm/dpm.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill::dpm_test {

using namespace kernel_test;

// ---- reference in double, straight from the formulas --------------------------------------------------------------

// Phi(b) - Phi(a) without cancellation in the tails.
inline double normal_mass(double a, double b) {
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

// Returns t of every bin; that of kMass is without the floor.
inline std::vector<double> teacher_map(const DpmBins& bins, DpmTarget target, double sigma, double floor,
                                       double depth) {
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

inline std::vector<double> target_of(const Case& c, float teacher) {
  return teacher_map(c.bins, c.options.target, static_cast<double>(c.options.sigma),
                     static_cast<double>(c.options.floor), static_cast<double>(teacher));
}

struct Pixel {
  double depth, lse, kl;
};

// t: teacher_map() of the pixel.
inline Pixel reference(const Case& c, const std::vector<double>& x, const std::vector<double>& t) {
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

inline constexpr DpmBins kKitti{257, 1e-3f, 80.0f}, kNyu{49, 1e-3f, 10.0f};
inline constexpr auto kMass = DpmTarget::kMass;
inline constexpr auto kPdf = DpmTarget::kSoftmaxPdf;
inline constexpr auto kST = KlDirection::kStudentTeacher;
inline constexpr auto kTS = KlDirection::kTeacherStudent;

inline std::vector<Case> cases() {
  const auto options = [](DpmTarget target, KlDirection kl, float sigma, float eps, bool mask, int64_t first_row) {
    return DpmOptions{target, kl, sigma, 1e-16f, eps, mask, first_row};
  };
  return {
      {"default", kKitti, DpmOptions{}, 257},
      {"default, padded channels", kKitti, DpmOptions{}, 264},
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

inline constexpr int64_t kN = 2, kH = 3, kW = 5, kPixels = kN * kH * kW;

// Teacher depths and gradients of the depth for kPixels pixels.
struct Targets {
  std::vector<float> teacher, ddepth;
  float dkl = 1.7f;

  explicit Targets(const Case& c)
      : teacher(random_values<float>(kPixels, 6, c.bins.d_min, c.bins.d_max)),
        ddepth(random_values<float>(kPixels, 7, -0.02f, 0.03f)) {
    // Some depths are the ends of the range and, where holes are left out, values that count as holes.
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
};

struct Expected {
  std::vector<double> depth, lse, dlogits;
  double kl = 0, count = 0;
};

// rows: the logits of every pixel.
inline Expected expected_results(const Case& c, const Targets& p, const std::vector<std::vector<double>>& rows) {
  Expected e;
  std::vector<bool> counted;
  std::vector<std::vector<double>> targets;
  for (int64_t i = 0; i < kPixels; ++i) {
    const float teacher = p.teacher[static_cast<size_t>(i)];
    const bool valid = std::isfinite(teacher) && teacher > 0 && teacher < 1.1f * c.bins.d_max;
    counted.push_back(i / kW % kH >= c.options.first_row && (valid || !c.options.mask));
    targets.push_back(target_of(c, counted.back() ? teacher : c.bins.d_min));
    const Pixel pixel = reference(c, rows[static_cast<size_t>(i)], targets.back());
    e.depth.push_back(pixel.depth);
    e.lse.push_back(pixel.lse);
    e.kl += counted.back() ? pixel.kl : 0;
    e.count += counted.back();
  }
  e.kl /= e.count;
  // The gradient comes from central differences of the reference itself.
  for (int64_t i = 0; i < kPixels; ++i) {
    auto x = rows[static_cast<size_t>(i)];
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

}  // namespace depthstill::dpm_test
