// The protocols by which published depth figures were found, a row each: which pixels count, how a prediction becomes
// depth, and what the metrics are called that differ by a detail.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/data/crop_rule.h"
#include "engine/eval/alignment.h"
#include "engine/eval/metrics.h"
#include "engine/io/map_kind.h"

namespace depthstill {

// A TruthRule says where truth g counts, beside the box and the set's own mask. Limits are compared as floats, as numpy
// and torch do: a truth of 1 mm is not greater than the limit 0.001 m.
enum class TruthRule : uint8_t {
  kInside,      // min < g < max
  kWithin,      // min <= g <= max
  kMask,        // g > 0: the set's mask alone decides
  kNoOutliers,  // 0 < g <= 1000 q with q the 1 % quantile of all g > 0 (linear interpolation)
};

// A PredictionResize says how a stored prediction is brought to the size of the frame.
enum class PredictionResize : uint8_t {
  kNone,       // another size is an error
  kHalfPixel,  // bilinear, src = (i + 0.5) n / m - 0.5, edges repeated (cv2.INTER_LINEAR, align_corners=False)
  kCorners,    // bilinear, src = i (n - 1) / (m - 1) (align_corners=True)
  kNearest,    // floor(i n / m)
};
struct PredictionResizeRow {
  PredictionResize resize;
  const char* name;  // in options
  const char* text;  // in descriptions
};
std::span<const PredictionResizeRow> prediction_resizes();

// How a protocol reads one data set.
struct ProtocolSet {
  const char* dataset;  // a row of benchmarks.h
  CropRule frame;       // part of the image that the network and the metrics see
  const char* box;      // one of the benchmark's boxes, or "none"
  TruthRule truth;
  double min_depth, max_depth;  // metres: limits of the prediction and, by kInside and kWithin, of truth
  int fit_side = 0;             // affine fits see every row and at most about so many columns; 0: all
};

struct ProtocolRow {
  const char* name;
  const char* citation;
  std::vector<ProtocolSet> sets;
  std::span<const MetricField> metrics;  // those that it defines
  MetricRule metric_rule = {};           // how they differ from those of metrics.h
  bool clamps = true;                    // predictions to the set's limits
  bool fits_positive = true;             // a fit in inverse depth leaves out predictions <= 0
  double least_inverse = 1e-3;           // 1/m: fitted inverse depth is raised to it; 0: to 1 / the greatest truth
  bool l1_on_grid = false;               // L1 fits see the nearest valid pixel of each cell of a 64 x 64 grid
  MedianRule median = {};
  int64_t least_pixels = 1;          // images with fewer valid ones are left out
  bool nonfinite_to_limits = false;  // NaN and infinity become the greatest depth, minus infinity the least
  PredictionResize resize = PredictionResize::kNone;
  Quantity predicts = Quantity::kDepth;  // what unstated predictions hold where the alignment does not decide
};

std::span<const ProtocolRow> protocols();
// The protocol of that name; throws Error that lists the names. "" is the one that `dataset` is scored by if none is
// named, the first that is defined on it: tie-kd, else marigold, else moge.
const ProtocolRow& find_protocol(std::string_view name, std::string_view dataset);
// Its set of that name. Throws Error that lists those on which it is defined.
const ProtocolSet& find_set(const ProtocolRow& protocol, std::string_view dataset);

}  // namespace depthstill
