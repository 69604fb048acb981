#include "engine/eval/boundary.h"

#include <algorithm>
#include <array>

#include "kernels/core/error.h"
#include "kernels/core/parallel.h"

namespace depthstill {
namespace {

constexpr size_t kThresholds = 10;
constexpr int64_t kBandRows = 64;

constexpr std::array<double, kThresholds> kThreshold = [] {
  std::array<double, kThresholds> t{};
  for (size_t i = 0; i < kThresholds; ++i) t[i] = 1.05 + 0.2 * static_cast<double>(i) / (kThresholds - 1);
  return t;
}();

// Pairs by the number of thresholds that they exceed, in one direction.
struct Edges {
  std::array<int64_t, kThresholds + 1> predicted{}, true_ones{}, both{};
};
using Directions = std::array<Edges, 4>;

size_t exceeded(double ratio) {
  return static_cast<size_t>(std::lower_bound(kThreshold.begin(), kThreshold.end(), ratio) - kThreshold.begin());
}

double inverse(float depth) { return 1 / std::max(static_cast<double>(depth), 1e-6); }

// Counts the pair of pixels a and b, as seen from a and as seen from b.
void count_pair(const DepthMap& prediction, const DepthMap& truth, size_t a, size_t b, Edges& forth, Edges& back) {
  const double d = inverse(prediction.values[a]) / inverse(prediction.values[b]);
  const double g = inverse(truth.values[a]) / inverse(truth.values[b]);
  const auto add = [](Edges& edges, double predicted, double actual) {
    const size_t i = exceeded(predicted), j = exceeded(actual);
    ++edges.predicted[i];
    ++edges.true_ones[j];
    ++edges.both[std::min(i, j)];
  };
  add(forth, d, g);
  add(back, 1 / d, 1 / g);
}

Directions count_rows(const DepthMap& prediction, const DepthMap& truth, int64_t first, int64_t last) {
  Directions directions{};
  for (int64_t y = first; y < last; ++y) {
    for (int64_t x = 0; x < truth.width; ++x) {
      const auto at = static_cast<size_t>(y * truth.width + x), below = at + static_cast<size_t>(truth.width);
      if (x + 1 < truth.width) count_pair(prediction, truth, at, at + 1, directions[0], directions[1]);
      if (y + 1 < truth.height) count_pair(prediction, truth, at, below, directions[2], directions[3]);
    }
  }
  return directions;
}

}  // namespace

double boundary_f1(const DepthMap& prediction, const DepthMap& truth) {
  check(prediction.size() == truth.size(), "boundary_f1: prediction has ", prediction.size(), " pixels, truth ",
        truth.size());
  const int64_t bands = (truth.height + kBandRows - 1) / kBandRows;
  std::vector<Directions> counts(static_cast<size_t>(bands));
  parallel_for(bands, 1, [&](int64_t band) {
    counts[static_cast<size_t>(band)] =
        count_rows(prediction, truth, band * kBandRows, std::min<int64_t>((band + 1) * kBandRows, truth.height));
  });
  double sum = 0, weights = 0;
  for (size_t t = 0; t < kThresholds; ++t) {
    double recall = 0, precision = 0;
    for (size_t direction = 0; direction < 4; ++direction) {
      int64_t predicted = 0, actual = 0, both = 0;
      for (const Directions& band : counts) {
        for (size_t i = t + 1; i <= kThresholds; ++i) {
          predicted += band[direction].predicted[i];
          actual += band[direction].true_ones[i];
          both += band[direction].both[i];
        }
      }
      recall += 0.25 * static_cast<double>(both) / static_cast<double>(std::max<int64_t>(actual, 1));
      precision += 0.25 * static_cast<double>(both) / static_cast<double>(std::max<int64_t>(predicted, 1));
    }
    weights += kThreshold[t];
    if (recall + precision > 0) sum += kThreshold[t] * 2 * recall * precision / (recall + precision);
  }
  return sum / weights;
}

}  // namespace depthstill
