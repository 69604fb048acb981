#include "engine/eval/fit_pixels.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace depthstill {
namespace {

constexpr int kGrid = 64;

// Pixels [first, last) whose centres may lie within `reach` of `centre` on an axis of `size` pixels.
struct Window {
  int first, last;
};
Window window(float centre, float reach, int size) {
  const auto first = static_cast<int>(std::floor(centre - reach)) - 1;
  const auto last = static_cast<int>(std::ceil(centre + reach)) + 1;
  return {std::clamp(first, 0, size), std::clamp(last, 0, size)};
}

// Cells of one axis: centres ((j + 0.5) size / 64), width size / 64; a pixel belongs to a cell if its centre's offset
// is in (-width / 2 + eps, width / 2 + eps]. All in float, as the reference computes it.
struct Cells {
  float width, eps;
  int size;
  Cells(int pixels_of_axis, int greatest) : width(static_cast<float>(pixels_of_axis) / kGrid), size(pixels_of_axis) {
    eps = std::ldexp(static_cast<float>(greatest), -23);
  }
  float centre(int cell) const {
    return (static_cast<float>(cell) + 0.5f) * static_cast<float>(size) / static_cast<float>(kGrid);
  }
  float offset(int cell, int pixel) const { return static_cast<float>(pixel) + 0.5f - centre(cell); }
  bool holds(float offset) const { return offset > -0.5f * width + eps && offset <= 0.5f * width + eps; }
  Window pixels(int cell) const { return window(centre(cell), 0.5f * width, size); }
};

}  // namespace

std::vector<uint8_t> grid_mask(ImageSize frame, std::span<const uint8_t> valid) {
  const int greatest = std::max(frame.height, frame.width);
  const Cells rows(frame.height, greatest), columns(frame.width, greatest);
  std::vector<uint8_t> mask(valid.size(), 0);
  for (int cell = 0; cell < kGrid * kGrid; ++cell) {
    const int i = cell / kGrid, j = cell % kGrid;
    const Window ys = rows.pixels(i), xs = columns.pixels(j);
    float least = std::numeric_limits<float>::infinity();
    size_t nearest = valid.size();
    for (int y = ys.first; y < ys.last; ++y) {
      const float dy = rows.offset(i, y);
      if (!rows.holds(dy)) continue;
      for (int x = xs.first; x < xs.last; ++x) {
        const size_t at = static_cast<size_t>(y) * static_cast<size_t>(frame.width) + static_cast<size_t>(x);
        const float dx = columns.offset(j, x), distance = dx * dx + dy * dy;
        if (!columns.holds(dx) || valid[at] == 0 || !(distance < least)) continue;
        least = distance;
        nearest = at;
      }
    }
    if (nearest < valid.size()) mask[nearest] = 1;
  }
  return mask;
}

std::vector<int> fitted_columns(ImageSize frame, int fit_side) {
  const double ratio = static_cast<double>(fit_side) / std::max(frame.height, frame.width);
  const bool all = fit_side == 0 || ratio >= 1;
  const int count = all ? frame.width : static_cast<int>(frame.width * ratio);
  const auto step = all ? 1.0f : static_cast<float>(1 / ratio);
  std::vector<int> columns;
  for (int j = 0; j < count; ++j) {
    columns.push_back(std::min(static_cast<int>(std::floor(static_cast<float>(j) * step)), frame.width - 1));
  }
  return columns;
}

FittedPixels::FittedPixels(const Protocol& protocol, ImageSize frame, bool inverted)
    : positive_(inverted || protocol.alignment == Alignment::kLogLs ||
                (fits_inverse(protocol.alignment) && protocol.rules->fits_positive)) {
  if (row_of(protocol.alignment).ambiguity != Ambiguity::kScaleAndShift || protocol.fit_side == 0) return;
  columns_.assign(static_cast<size_t>(frame.width), 0);
  for (const int x : fitted_columns(frame, protocol.fit_side)) columns_[static_cast<size_t>(x)] = 1;
}

void FittedPixels::leave(size_t first, std::span<const float> prediction, std::span<uint8_t> mask) const {
  for (size_t i = 0; i < mask.size() && !columns_.empty(); ++i) mask[i] &= columns_[(first + i) % columns_.size()];
  if (!positive_) return;
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = prediction[i] > 0 ? mask[i] : uint8_t{0};
}

std::vector<uint8_t> fit_mask(const Protocol& protocol, ImageSize frame, std::span<const float> prediction,
                              bool inverted, std::span<const uint8_t> valid) {
  std::vector<uint8_t> mask(valid.begin(), valid.end());
  FittedPixels(protocol, frame, inverted).leave(0, prediction, mask);
  return row_of(protocol.alignment).l1 && protocol.rules->l1_on_grid ? grid_mask(frame, mask) : mask;
}

}  // namespace depthstill
