#include "kernels/dpm/dpm_target.h"

#include <algorithm>
#include <numbers>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

// exp(x^2) erfc(x) for x >= 0.
double erfcx(double x) {
  if (x < 5) return std::exp(x * x) * std::erfc(x);
  double tail = 0;  // continued fraction; 60 terms are exact to double from x = 5 on
  for (int k = 60; k >= 1; --k) tail = k / 2.0 / (x + tail);
  return 1 / (std::sqrt(std::numbers::pi) * (x + tail));
}

// log(Phi(b) - Phi(a)) for a < b, accurate also where the difference underflows.
double log_normal_mass(double a, double b) {
  if (a + b < 0) {  // mirror, so that the mass lies to the right of 0 or around it
    const double swapped = -a;
    a = -b;
    b = swapped;
  }
  const double root = std::numbers::sqrt2;
  if (a <= 0) return std::log1p(-0.5 * std::erfc(-a / root) - 0.5 * std::erfc(b / root));
  const double at_a = erfcx(a / root), at_b = erfcx(b / root);
  return -a * a / 2 + std::log(0.5 * at_a) + std::log1p(-std::exp((a * a - b * b) / 2) * at_b / at_a);
}

}  // namespace

DpmTable make_dpm_table(const DpmBins& bins, DpmTarget target, float sigma_float, float floor) {
  const double sigma = static_cast<double>(sigma_float), width = bins.width();
  const double log_floor = std::log(static_cast<double>(floor));
  check(bins.bins >= 1 && width > 0, "dpm: expected at least one bin and d_min < d_max, got ", bins.bins,
        " bins over [", bins.d_min, ", ", bins.d_max, "]");
  check(sigma >= width / 64 && std::isfinite(sigma), "dpm: expected sigma >= bin width / 64 = ", width / 64, " m, got ",
        sigma);
  check(floor > 0 && floor < 1, "dpm: expected 0 < floor < 1, got ", floor);

  const bool mass = target == DpmTarget::kMass;
  const double peak_density = 1 / (sigma * std::sqrt(2 * std::numbers::pi));
  double half_window;  // metres
  if (mass) {
    // The window ends where m_i, which decreases with the distance, falls below floor * Z; Z is smallest at the ends of
    // the range.
    const double range = static_cast<double>(bins.d_max) - static_cast<double>(bins.d_min);
    const double least = log_floor + std::log(0.5 * std::erf(range / sigma / std::numbers::sqrt2));
    double low = 0, high = width + sigma * std::sqrt(-2 * least);
    for (int step = 0; step < 60; ++step) {
      const double u = (low + high) / 2;
      (log_normal_mass((u - width / 2) / sigma, (u + width / 2) / sigma) > least ? low : high) = u;
    }
    half_window = high;
  } else {
    check(peak_density > static_cast<double>(floor), "dpm: every density is below the floor ", floor, " at sigma ",
          sigma);
    half_window = sigma * std::sqrt(2 * (std::log(peak_density) - log_floor));
  }

  DpmTable table;
  DpmTableView& view = table.view;
  view.target = target;
  // |second derivative| of log m is at most 1 / sigma^2, of the density peak / sigma^2; linear blending is off by 1/8
  // of it times the squared step.
  const double curvature = (mass ? 1.0 : peak_density) * (width / sigma) * (width / sigma);
  view.phases = 8;
  while (view.phases < 1024 && curvature / (8.0 * view.phases * view.phases) > 5e-6) view.phases *= 2;
  view.half_window = std::min(half_window / width, static_cast<double>(bins.bins));
  view.reach = static_cast<int>(std::ceil(view.half_window));
  view.columns = (2 * view.reach + 2 + 15) / 16 * 16;
  view.log_floor = static_cast<float>(log_floor);
  view.d_min = bins.d_min;
  view.d_max = bins.d_max;
  view.sigma = sigma_float;
  view.per_width = 1 / width;

  table.values.resize(static_cast<size_t>(view.phases + 1) * static_cast<size_t>(view.columns));
  for (int p = 0; p <= view.phases; ++p) {
    for (int j = 0; j < view.columns; ++j) {
      const double u = std::abs(j - view.reach - static_cast<double>(p) / view.phases) * width / sigma;
      const double half = width / sigma / 2;
      table.values[static_cast<size_t>(p * view.columns + j)] =
          static_cast<float>(mass ? log_normal_mass(u - half, u + half) : peak_density * std::expm1(-u * u / 2));
    }
  }
  view.values = table.values.data();
  return table;
}

}  // namespace depthstill
