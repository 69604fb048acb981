// The teacher's depth probability map (TIE-KD Eq. 1-2) of one pixel of depth d, never stored: log t_i is read from a
// table. The Gaussian's mass in each bin, renormalised:
//   kMass:        t_i = max(m_i / Z, floor)
//                 m_i = Phi((e_{i+1} - d) / sigma) - Phi((e_i - d) / sigma)
//                 Z   = Phi((d_max - d) / sigma) - Phi((d_min - d) / sigma)
// The published code has this instead, nearly flat over +-6.8 m for sigma 0.8 m:
//   kSoftmaxPdf:  t = softmax of the *densities* f_i = N(c_i; d, sigma) over the bins with f_i >= floor, 0 elsewhere
// Before normalisation both depend on c_i - d alone and bins are uniform, so one pixel meets the same fraction of a bin
// at every bin: row p of the table holds T(c_i - d) for fraction p / phases in consecutive columns, and a pixel blends
// two rows, with contiguous loads. Phases are chosen so that blending is off by at most 5e-6 (1,024 phases at most).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/core/bf16.h"

namespace depthstill {

// Uniform bins; the centre of bin i is d_min + (i + 1/2) width.
struct DpmBins {
  int bins = 257;
  float d_min = 1e-3f, d_max = 80.0f;  // metres

  DS_HOST_DEVICE double width() const { return (static_cast<double>(d_max) - static_cast<double>(d_min)) / bins; }
  DS_HOST_DEVICE double centre(int i) const { return static_cast<double>(d_min) + (i + 0.5) * width(); }
  bool operator==(const DpmBins&) const = default;
};

enum class DpmTarget : uint8_t { kMass, kSoftmaxPdf };

// A kernel needs this of the table; `values` lives where the kernel runs.
struct DpmTableView {
  DpmTarget target = DpmTarget::kMass;
  int phases = 0;
  int reach = 0;           // bins from the one that d falls behind to column 0
  int columns = 0;         // columns of a row; a multiple of 16
  double half_window = 0;  // bins; columns further from d than this have t = floor
  float log_floor = 0;
  float d_min = 0, d_max = 0, sigma = 0;
  double per_width = 0;           // 1 / bin width
  const float* values = nullptr;  // (phases + 1, columns): log m_i, or f_i less its peak
};

struct DpmTable {
  DpmTableView view;
  std::vector<float> values;

  // Returns the view for a copy of `values` at `data`.
  DpmTableView at(const float* data) const {
    DpmTableView moved = view;
    moved.values = data;
    return moved;
  }
};

// The table is computed in double. Requires sigma >= bin width / 64 and 0 < floor < 1.
DpmTable make_dpm_table(const DpmBins& bins, DpmTarget target, float sigma, float floor);

// One pixel's target lies here: column j describes bin first + j, and has t above the floor only for lo <= j <= hi.
struct DpmWindow {
  int first, lo, hi;
  const float* row;  // row of the table; the next one is `columns` further
  float blend;
  float log_norm;  // norm of kMass; kSoftmaxPdf sums over its window
};

// `depth` is clamped to [d_min, d_max]; NaN counts as d_min.
DS_HOST_DEVICE inline DpmWindow locate(const DpmTableView& table, int bins, float depth) {
  const float at_least = depth > table.d_min ? depth : table.d_min;
  const float d = at_least < table.d_max ? at_least : table.d_max;
  // y is in units of bins, with the centres at the integers.
  const double y = (static_cast<double>(d) - static_cast<double>(table.d_min)) * table.per_width - 0.5;
  const double base = std::floor(y);
  const double phase = (y - base) * table.phases;
  const int row = static_cast<int>(phase);
  DpmWindow window;
  window.first = static_cast<int>(base) - table.reach;
  const int lo = static_cast<int>(std::ceil(y - table.half_window));
  const int hi = static_cast<int>(std::floor(y + table.half_window));
  window.lo = (lo < 0 ? 0 : lo) - window.first;
  window.hi = (hi > bins - 1 ? bins - 1 : hi) - window.first;
  window.row = table.values + static_cast<int64_t>(row) * table.columns;
  window.blend = static_cast<float>(phase - row);
  window.log_norm = 0.0f;
  if (table.target == DpmTarget::kMass) {
    // Z = (erf(a) + erf(b)) / 2, 1 to rounding when both are large.
    const float scale = 0.70710678f / table.sigma;
    const float a = (d - table.d_min) * scale, b = (table.d_max - d) * scale;
    if (a < 4.0f || b < 4.0f) window.log_norm = std::log(0.5f * (std::erf(a) + std::erf(b)));
  }
  return window;
}

// Entry j of the table, blended: log t before normalisation and floor.
DS_HOST_DEVICE inline float blended(const DpmWindow& window, int columns, int j) {
  const float left = window.row[j];
  return left + window.blend * (window.row[j + columns] - left);
}

}  // namespace depthstill
