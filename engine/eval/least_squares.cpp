#include "engine/eval/least_squares.h"

namespace depthstill {
namespace {

template <class Target>
Moments moments_by(std::span<const float> prediction, std::span<const float> truth, std::span<const uint8_t> mask,
                   const Target& target) {
  Moments m;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    ++m.n;
    m.p += static_cast<double>(prediction[i]);
    m.y += target(static_cast<double>(truth[i]));
  }
  if (m.n == 0) return m;
  m.p /= m.n;
  m.y /= m.n;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    const double dp = static_cast<double>(prediction[i]) - m.p;
    m.pp += dp * dp;
    m.py += dp * (target(static_cast<double>(truth[i])) - m.y);
  }
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
                   bool inverse) {
  if (inverse) return moments_by(prediction, truth, mask, [](double g) { return 1 / g; });
  return moments_by(prediction, truth, mask, [](double g) { return g; });
}

Fit least_norm_line(double p, double y) { return {y * p / (p * p + 1), y / (p * p + 1)}; }

Fit line_of(const Moments& m) {
  if (m.pp == 0) return least_norm_line(m.p, m.y);
  const double scale = m.py / m.pp;
  return {scale, m.y - scale * m.p};
}

}  // namespace depthstill
