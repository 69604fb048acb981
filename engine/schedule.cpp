#include "engine/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

// The value goes from `from` at t = 0 to `to` at t = 1.
double along_cosine(double from, double to, double t) {
  return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * std::clamp(t, 0.0, 1.0)));
}

double one_cycle(const Schedule& s, double k, double n) {
  const double start = s.lr / s.div_factor, peak_at = s.pct_start * n - 1;
  if (peak_at > 0 && k <= peak_at) return along_cosine(start, s.lr, k / peak_at);
  // A run of few updates may have its peak before the first or after the last one.
  const double from = std::max(peak_at, 0.0), length = n - 1 - from;
  return along_cosine(s.lr, start / s.final_div_factor, length > 0 ? (k - from) / length : 1.0);
}

}  // namespace

double Schedule::at(int64_t update, int64_t updates) const {
  check(update >= 0 && update < updates, "schedule: expected an update below ", updates, ", got ", update);
  const auto k = static_cast<double>(update), n = static_cast<double>(updates);
  if (kind == Kind::kOneCycle) return one_cycle(*this, k, n);
  double rate = lr;
  if (kind == Kind::kPolynomial) rate = min_lr + (lr - min_lr) * std::pow(1 - k / n, power);
  if (update < warmup_updates) rate *= 1 - (1 - k / static_cast<double>(warmup_updates)) * (1 - warmup_ratio);
  return rate;
}

Schedule::Kind parse_schedule_kind(std::string_view text) {
  if (text == "constant") return Schedule::Kind::kConstant;
  if (text == "one_cycle") return Schedule::Kind::kOneCycle;
  if (text == "polynomial") return Schedule::Kind::kPolynomial;
  fail("schedule: expected constant, one_cycle or polynomial, got '", text, "'");
}

}  // namespace depthstill
