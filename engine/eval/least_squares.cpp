#include "engine/eval/least_squares.h"

#include "kernels/core/vector_math.h"

namespace depthstill {
namespace {

template <class Source, class Target>
Moments moments_by(std::span<const float> prediction, std::span<const float> truth, std::span<const uint8_t> mask,
                   const Source& source, const Target& target) {
  double n = 0, p = 0, y = 0;
#pragma omp simd reduction(+ : n, p, y)
  for (size_t i = 0; i < mask.size(); ++i) {
    const bool in = mask[i] != 0;
    n += in ? 1.0 : 0.0;
    p += in ? source(static_cast<double>(prediction[i])) : 0.0;
    y += in ? target(static_cast<double>(truth[i])) : 0.0;
  }
  Moments m;
  if (n == 0) return m;
  const double p_mean = p / n, y_mean = y / n;
  double pp = 0, py = 0;
#pragma omp simd reduction(+ : pp, py)
  for (size_t i = 0; i < mask.size(); ++i) {
    const bool in = mask[i] != 0;
    const double dp = in ? source(static_cast<double>(prediction[i])) - p_mean : 0.0;
    const double dy = in ? target(static_cast<double>(truth[i])) - y_mean : 0.0;
    pp += dp * dp;
    py += dp * dy;
  }
  m.n = n;
  m.p = p_mean;
  m.y = y_mean;
  m.pp = pp;
  m.py = py;
  return m;
}

}  // namespace

Moments& Moments::operator+=(const Moments& other) {
  if (other.n == 0) return *this;
  const double all = n + other.n, dp = other.p - p, dy = other.y - y, weight = n * other.n / all;
  pp += other.pp + dp * dp * weight;
  py += other.py + dp * dy * weight;
  p += dp * other.n / all;
  y += dy * other.n / all;
  n = all;
  return *this;
}

Moments moments_of(std::span<const float> prediction, std::span<const float> truth, std::span<const uint8_t> mask,
                   Alignment alignment) {
  const auto itself = [](double x) { return x; };
  const auto logarithm = [](double x) { return vector_log(x); };
  if (alignment == Alignment::kLogLs) return moments_by(prediction, truth, mask, logarithm, logarithm);
  if (fits_inverse(alignment)) return moments_by(prediction, truth, mask, itself, [](double g) { return 1 / g; });
  return moments_by(prediction, truth, mask, itself, itself);
}

Fit least_norm_line(double p, double y) { return {y * p / (p * p + 1), y / (p * p + 1)}; }

Fit line_of(const Moments& m) {
  if (m.pp == 0) return least_norm_line(m.p, m.y);
  const double scale = m.py / m.pp;
  return {scale, m.y - scale * m.p};
}

}  // namespace depthstill
