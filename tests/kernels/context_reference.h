// The losses of relative maps in double, from their definitions (kernels/context): contexts as masks, medians by
// sorting, no gradients. Maps are (N, H, W), y is NaN where nothing counts.
#pragma once

#include "kernels/context/context_loss.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill::kernel_test {

using Doubles = std::vector<double>;
using Mask = std::vector<char>;

struct ReferenceOptions {
  ContextNorm norm = ContextNorm::kHybrid;
  ContextKind kind = ContextKind::kRange;
  bool reference = false;
  double trim = 0;

  // The rule of the statistics: a global context keeps its greatest pixels in any mode.
  ContextRule rule() const { return {kind, reference, reference && norm != ContextNorm::kGlobal}; }
  ContextLossOptions loss() const { return {norm, ContextDetach::kNothing, trim, reference}; }
};

struct ReferenceStats {
  double t = 0, s = 1e-6;
  int n = 0, below = 0, equal = 0;
};

inline ReferenceStats reference_stats(const Doubles& v, const Mask& in, bool reference) {
  Doubles values;
  for (size_t i = 0; i < v.size(); ++i) {
    if (in[i]) values.push_back(v[i]);
  }
  ReferenceStats stats;
  if (values.empty()) return stats;
  std::sort(values.begin(), values.end());
  stats.n = static_cast<int>(values.size());
  stats.t = values[(values.size() - 1) / 2];
  double sum = 0;
  for (const double value : values) {
    sum += std::abs(value - stats.t);
    stats.below += value < stats.t;
    stats.equal += value == stats.t;
  }
  stats.s = reference ? sum / (stats.n + 1) + 1e-6 : std::max(sum / stats.n, 1e-6);
  return stats;
}

// The contexts of one image (H, W): levels of 4, 2 and 1 intervals, or of 4 x 4, 2 x 2 and 1 cells, row by row.
inline std::vector<Mask> reference_contexts(const Doubles& y, int64_t H, int64_t W, const ReferenceOptions& o) {
  Doubles sorted;
  for (const double value : y) {
    if (std::isfinite(value)) sorted.push_back(value);
  }
  std::sort(sorted.begin(), sorted.end());
  const auto edge = [&](int k, int S) {
    if (o.kind == ContextKind::kQuantile) {  // linear interpolation
      const double at = static_cast<double>(k) / S * static_cast<double>(sorted.size() - 1), low = std::floor(at);
      const double a = sorted[static_cast<size_t>(low)], b = sorted[static_cast<size_t>(std::ceil(at))];
      return a + (b - a) * (at - low);
    }
    const double m = sorted.front(), M = sorted.back();
    return o.reference ? m + (M - m) * k / S : ((S - k) * m + k * M) / S;
  };
  std::vector<Mask> contexts;
  for (const int S : {4, 2, 1}) {
    if (o.norm == ContextNorm::kLocal && S != 4) continue;
    if (o.norm == ContextNorm::kGlobal && S != 1) continue;
    const bool grid = o.kind == ContextKind::kGrid;
    for (int u = 0; u < (grid ? S * S : S); ++u) {
      Mask mask(y.size());
      for (int64_t i = 0; i < H * W; ++i) {
        const auto at = static_cast<size_t>(i);
        if (!std::isfinite(y[at])) continue;
        if (grid) {
          mask[at] = i / W * S / H * S + i % W * S / W == u;
        } else if (o.norm == ContextNorm::kGlobal) {
          mask[at] = true;
        } else {
          const bool open = o.reference || u + 1 < S;
          mask[at] = y[at] >= edge(u, S) && (!open || y[at] < edge(u + 1, S));
        }
      }
      contexts.push_back(mask);
    }
  }
  return contexts;
}

inline Doubles image_of(const Doubles& maps, int64_t n, int64_t pixels) {
  return {maps.begin() + n * pixels, maps.begin() + (n + 1) * pixels};
}

inline Doubles to_doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// The losses of an image's pixels.
inline Doubles reference_losses(const Doubles& x, const Doubles& y, int64_t H, int64_t W, const ReferenceOptions& o) {
  Doubles losses(x.size()), counts(x.size());
  if (o.norm == ContextNorm::kNone) {
    for (size_t i = 0; i < x.size(); ++i) losses[i] = std::isfinite(y[i]) ? std::abs(x[i] - y[i]) : 0.0;
    return losses;
  }
  if (std::none_of(y.begin(), y.end(), [](double value) { return std::isfinite(value); })) return losses;
  for (const Mask& in : reference_contexts(y, H, W, o)) {
    const ReferenceStats a = reference_stats(x, in, o.reference), b = reference_stats(y, in, o.reference);
    for (size_t i = 0; i < x.size(); ++i) {
      if (!in[i]) continue;
      losses[i] += std::abs((x[i] - a.t) / a.s - (y[i] - b.t) / b.s);
      counts[i] += 1;
    }
  }
  for (size_t i = 0; i < x.size(); ++i) losses[i] = counts[i] > 0 ? losses[i] / counts[i] : 0.0;
  return losses;
}

// L_Dis of a batch.
inline double reference_loss(const Doubles& x, const Doubles& y, const MapShape& shape, const ReferenceOptions& o) {
  double total = 0, counted = 0;
  for (int64_t n = 0; n < shape.N; ++n) {
    const Doubles yi = image_of(y, n, shape.pixels());
    const Doubles losses = reference_losses(image_of(x, n, shape.pixels()), yi, shape.H, shape.W, o);
    Doubles kept;
    for (size_t i = 0; i < yi.size(); ++i) {
      if (std::isfinite(yi[i])) kept.push_back(losses[i]);
    }
    counted += static_cast<double>(kept.size());
    std::sort(kept.begin(), kept.end());
    kept.resize(kept.size() - static_cast<size_t>(o.trim * static_cast<double>(kept.size())));
    for (const double loss : kept) total += loss;
  }
  return counted > 0 ? total / counted : 0.0;
}

// d loss(x) / dx by central differences, 0 where y does not count.
template <class Loss>
Doubles numeric_gradient(const Doubles& x, const Doubles& y, const Loss& loss) {
  constexpr double kStep = 1e-6;
  Doubles gradient(x.size()), moved = x;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(y[i])) continue;
    moved[i] = x[i] + kStep;
    const double up = loss(moved);
    moved[i] = x[i] - kStep;
    gradient[i] = (up - loss(moved)) / (2 * kStep);
    moved[i] = x[i];
  }
  return gradient;
}

// A pair of maps: y like a scene, with some pixels missing where `holes` is above 0; x loosely like y, garbage below.
struct MapPair {
  std::vector<float> x, y;

  MapPair(const MapShape& shape, uint32_t seed, double holes) {
    const auto size = static_cast<size_t>(shape.N * shape.pixels());
    const auto noise = random_values<float>(2 * size, seed), missing = random_values<float>(size, seed + 1, 0.0f, 1.0f);
    for (size_t i = 0; i < size; ++i) {
      const auto at = static_cast<float>(i % static_cast<size_t>(shape.pixels()));
      const float scene = 3.0f + std::sin(0.13f * at) + std::cos(0.0071f * at) + 0.5f * noise[i];
      const bool hole = static_cast<double>(missing[i]) < holes;
      y.push_back(hole ? std::numeric_limits<float>::quiet_NaN() : scene);
      x.push_back(hole ? 1e30f : 5.0f + 2.0f * scene + noise[size + i]);
    }
  }
};

}  // namespace depthstill::kernel_test
