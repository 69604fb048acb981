// An Alignment brings a prediction to the truth's scale before it is scored: with prediction p, truth g (metres) and
// y = g, or y = 1 / g where the fit is one of inverse depth, a = scale * p + shift is as close to y as the alignment
// understands it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/io/map_kind.h"

namespace depthstill {

enum class Alignment : uint8_t {
  kNone,         // metres as they are
  kMedian,       // scale = median(g) / median(p), of an even count the mean of the two middle values
  kDepthLs,      // least sum (a - g)^2
  kDisparityLs,  // least sum (a - 1/g)^2 (MiDaS, Ranftl et al. 2020; Marigold, Ke et al. 2024)
  kScaleL1,      // least sum |scale p - g| / g (MoGe, Wang et al. 2025)
  kDepthL1,      // least sum |a - g| / g: the affine map of least abs_rel (MoGe)
  kDisparityL1,  // least sum |a - 1/g| g: that of least relative error of inverse depth
  kLogLs,        // least sum (scale ln p + shift - ln g)^2, for depth e^shift p^scale (Ultralytics)
};

struct AlignmentRow {
  Alignment alignment;
  const char* name;     // in options and recipes
  Quantity quantity;    // of the predictions that it fits
  Ambiguity ambiguity;  // what predictions may lack to be absolute
  bool l1 = false;      // least absolute residuals
};
std::span<const AlignmentRow> alignments();
const AlignmentRow& row_of(Alignment alignment);
// Whether y is 1 / g.
bool fits_inverse(Alignment alignment);
// Throws Error that lists the names.
Alignment find_alignment(std::string_view name);

struct Fit {
  double scale = 1, shift = 0;
  int64_t pixels = 0;  // that were fitted
};

// A MedianRule says what kMedian divides by what.
struct MedianRule {
  bool lower = false;  // of an even count the lower of the middle values (torch.median), not their mean (numpy.median)
  float least = 0;     // predictions below count as this
};

// Fits over the pixels with mask != 0 (by kLogLs their predictions are > 0), in double, with the same bits for any
// number of threads. kNone fits nothing. Throws Error, naming `name`, if there are none, or if they do not determine
// the fit. If all predictions are equal, a scale and shift are those of least norm, as numpy.linalg.lstsq has it.
Fit fit(Alignment alignment, const MedianRule& rule, const std::string& name, std::span<const float> prediction,
        std::span<const float> truth, std::span<const uint8_t> mask);

// What fit() throws without pixels.
void check_fitted(Alignment alignment, const std::string& name, int64_t pixels);

}  // namespace depthstill
