#include "engine/eval/l1_fit.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr int kSearchSteps = 80, kMostWidenings = 64;

struct Trial {
  L1Line line;
  double residuals;
};

// The best line of a given slope.
class SlopeSearch {
 public:
  explicit SlopeSearch(std::span<const WeightedPair> pairs) : pairs_(pairs), offsets_(pairs.size()) {}

  Trial at(double slope) {
    for (size_t i = 0; i < pairs_.size(); ++i) {
      offsets_[i] = {pairs_[i].y - slope * pairs_[i].x, pairs_[i].weight};
    }
    const double shift = weighted_median(offsets_);
    double residuals = 0;
    for (const WeightedPair& pair : pairs_) residuals += pair.weight * std::abs(slope * pair.x + shift - pair.y);
    return {{slope, shift}, residuals};
  }

 private:
  std::span<const WeightedPair> pairs_;
  std::vector<WeightedValue> offsets_;
};

}  // namespace

double weighted_median(std::span<WeightedValue> values) {
  const auto by_value = [](const WeightedValue& a, const WeightedValue& b) { return a.value < b.value; };
  double half = 0, below = 0;
  for (const WeightedValue& value : values) half += 0.5 * value.weight;
  // The median stays within `values`; `below` is the weight of what was cut off at the front.
  while (values.size() > 1) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end(), by_value);
    double front = 0;
    for (auto at = values.begin(); at != middle; ++at) front += at->weight;
    if (below + front >= half) {
      values = {values.begin(), middle};
    } else {
      below += front;
      values = {middle, values.end()};
    }
  }
  return values.front().value;
}

double fit_scale_l1(std::span<const WeightedPair> pairs) {
  std::vector<WeightedValue> ratios;
  for (const WeightedPair& pair : pairs) {
    if (pair.x != 0) ratios.push_back({pair.y / pair.x, pair.weight * std::abs(pair.x)});
  }
  check(!ratios.empty(), "expected a prediction that is not 0 to fit, found none");
  return weighted_median(ratios);
}

L1Line fit_line_l1(std::span<const WeightedPair> pairs, double slope) {
  SlopeSearch search(pairs);
  const double reach = 10 * std::max(std::abs(slope), 1e-12);
  double low = slope - reach, high = slope + reach;
  Trial best = search.at(slope), end_low = search.at(low), end_high = search.at(high);
  for (int i = 0; i < kMostWidenings && std::min(end_low.residuals, end_high.residuals) < best.residuals; ++i) {
    const double width = high - low;  // the minimum of a convex function lies beyond an end that is lower than within
    if (end_low.residuals < best.residuals) {
      best = end_low;
      end_low = search.at(low -= 2 * width);
    } else {
      best = end_high;
      end_high = search.at(high += 2 * width);
    }
  }
  constexpr double kGolden = 1 / std::numbers::phi;
  double left = high - kGolden * (high - low), right = low + kGolden * (high - low);
  Trial at_left = search.at(left), at_right = search.at(right);
  for (int i = 0; i < kSearchSteps; ++i) {
    if (at_left.residuals <= at_right.residuals) {
      high = right;
      right = left;
      at_right = at_left;
      left = high - kGolden * (high - low);
      at_left = search.at(left);
    } else {
      low = left;
      left = right;
      at_left = at_right;
      right = low + kGolden * (high - low);
      at_right = search.at(right);
    }
    for (const Trial& trial : {at_left, at_right}) {
      if (trial.residuals < best.residuals) best = trial;
    }
  }
  return best.line;
}

}  // namespace depthstill
