#include "engine/eval/alignment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "engine/eval/l1_fit.h"
#include "engine/eval/least_squares.h"
#include "engine/eval/median_search.h"
#include "engine/eval/pixel_blocks.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr std::array<AlignmentRow, 8> kAlignments{{
    {Alignment::kNone, "none", Quantity::kDepth, Ambiguity::kNone},
    {Alignment::kMedian, "median", Quantity::kDepth, Ambiguity::kScale},
    {Alignment::kDepthLs, "depth-ls", Quantity::kDepth, Ambiguity::kScaleAndShift},
    {Alignment::kDisparityLs, "disparity-ls", Quantity::kInverseDepth, Ambiguity::kScaleAndShift},
    {Alignment::kScaleL1, "scale-l1", Quantity::kDepth, Ambiguity::kScale, true},
    {Alignment::kDepthL1, "depth-l1", Quantity::kDepth, Ambiguity::kScaleAndShift, true},
    {Alignment::kDisparityL1, "disparity-l1", Quantity::kInverseDepth, Ambiguity::kScaleAndShift, true},
    {Alignment::kLogLs, "log-ls", Quantity::kDepth, Ambiguity::kScale},
}};

struct Pixels {
  std::span<const float> prediction, truth;
  std::span<const uint8_t> mask;
};

// f(p, g) of every pixel in [begin, end) that is fitted.
template <class F>
void for_each_pixel(const Pixels& pixels, size_t begin, size_t end, const F& f) {
  for (size_t i = begin; i < end; ++i) {
    if (pixels.mask[i]) f(pixels.prediction[i], pixels.truth[i]);
  }
}

Fit fit_least_squares(const Pixels& pixels, Alignment alignment) {
  return line_of(sum_pixel_blocks<Moments>(pixels.mask.size(), [&](size_t begin, size_t end) {
    const size_t n = end - begin;
    return moments_of(pixels.prediction.subspan(begin, n), pixels.truth.subspan(begin, n),
                      pixels.mask.subspan(begin, n), alignment);
  }));
}

float median(std::vector<float>& values, bool lower) {
  const size_t half = values.size() / 2;
  const bool even = values.size() % 2 == 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(half);
  std::nth_element(values.begin(), middle, values.end());
  if (!even) return *middle;
  const float below = *std::max_element(values.begin(), middle);
  return lower ? below : 0.5f * (below + *middle);
}

Fit fit_median(const Pixels& pixels, const MedianRule& rule) {
  std::vector<float> p, g;
  for_each_pixel(pixels, 0, pixels.mask.size(), [&](float prediction, float truth) {
    p.push_back(std::max(prediction, rule.least));
    g.push_back(truth);
  });
  return median_fit(median(p, rule.lower), median(g, rule.lower));
}

// Weighs each pixel by 1 / y.
Fit fit_l1(const Pixels& pixels, Alignment alignment) {
  std::vector<WeightedPair> pairs;
  const bool inverse = fits_inverse(alignment);
  for_each_pixel(pixels, 0, pixels.mask.size(), [&](double p, double g) {
    pairs.push_back({p, inverse ? 1 / g : g, inverse ? g : 1 / g});
  });
  if (alignment == Alignment::kScaleL1) return {fit_scale_l1(pairs), 0};
  const auto [least, greatest] = std::minmax_element(
      pairs.begin(), pairs.end(), [](const WeightedPair& a, const WeightedPair& b) { return a.x < b.x; });
  if (least->x == greatest->x) {
    std::vector<WeightedValue> truths;
    for (const WeightedPair& pair : pairs) truths.push_back({pair.y, pair.weight});
    return least_norm_line(least->x, weighted_median(truths));
  }
  const L1Line line = fit_line_l1(pairs, fit_least_squares(pixels, alignment).scale);
  return {line.scale, line.shift};
}

Fit fit_pixels(Alignment alignment, const MedianRule& rule, const Pixels& pixels) {
  switch (alignment) {
    case Alignment::kNone:
      break;
    case Alignment::kMedian:
      return fit_median(pixels, rule);
    case Alignment::kDepthLs:
    case Alignment::kDisparityLs:
    case Alignment::kLogLs:
      return fit_least_squares(pixels, alignment);
    case Alignment::kScaleL1:
    case Alignment::kDepthL1:
    case Alignment::kDisparityL1:
      return fit_l1(pixels, alignment);
  }
  return {};
}

}  // namespace

std::span<const AlignmentRow> alignments() { return kAlignments; }

const AlignmentRow& row_of(Alignment alignment) { return kAlignments[static_cast<size_t>(alignment)]; }

bool fits_inverse(Alignment alignment) { return row_of(alignment).quantity == Quantity::kInverseDepth; }

Alignment find_alignment(std::string_view name) {
  for (const AlignmentRow& row : kAlignments) {
    if (row.name == name) return row.alignment;
  }
  fail("alignment: expected ",
       list_text(
           kAlignments, [](const AlignmentRow& row) { return row.name; }, " or "),
       ", got '", name, "'");
}

void check_fitted(Alignment alignment, const std::string& name, int64_t pixels) {
  check(pixels > 0, name, ": expected a pixel to fit by ", row_of(alignment).name, ", found none");
}

Fit fit(Alignment alignment, const MedianRule& rule, const std::string& name, std::span<const float> prediction,
        std::span<const float> truth, std::span<const uint8_t> mask) {
  if (alignment == Alignment::kNone) return {};
  const Pixels pixels{prediction, truth, mask};
  const auto count = static_cast<int64_t>(mask.size()) - std::count(mask.begin(), mask.end(), uint8_t{0});
  check_fitted(alignment, name, count);
  try {
    Fit found = fit_pixels(alignment, rule, pixels);
    found.pixels = count;
    return found;
  } catch (const Error& error) {
    fail(name, ": ", error.what());
  }
}

}  // namespace depthstill
