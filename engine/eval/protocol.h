// A Protocol says which pixels an evaluation compares and how: published depth figures differ by such details, so every
// result is printed together with describe().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/data/sample.h"
#include "engine/eval/alignment.h"
#include "engine/eval/benchmarks.h"
#include "engine/eval/protocols.h"
#include "kernels/depth_target.h"

namespace depthstill {

enum class Target { kTruth, kTeacher };  // kTeacher: similarity to the teacher's maps (TIE-KD Tables 2 and 3)

struct Protocol {
  std::string dataset;                 // name of the row it was made from (benchmarks.h)
  const ProtocolRow* rules = nullptr;  // the named protocol (protocols.h)
  CropRule frame = CropRule::kNone;    // part of the image that the network and the metrics see
  const EvalBox* box = nullptr;        // null: the whole frame is compared
  Target target = Target::kTruth;
  TruthRule truth = TruthRule::kInside;
  double min_depth = 1e-3,
         max_depth = 80;  // metres: predictions are clamped to it, `truth` may leave out what is beyond
  Alignment alignment = Alignment::kNone;
  Quantity metric_space = Quantity::kDepth;           // what metrics compare: depth, or its inverse
  bool nonfinite_to_limits = false;                   // see ProtocolRow
  int fit_side = 0;                                   // see ProtocolSet
  PredictionResize resize = PredictionResize::kNone;  // of stored predictions
  int first_row = 0;                                  // rows above are left out (teacher similarity: 110)
};

// Its metrics: those of the named protocol, of metric_space.
MetricRule metric_rule(const Protocol& protocol);

// A named protocol of protocols.h on a benchmark, with its box there; without a name the benchmark's usual one.
Protocol make_protocol(const std::string& dataset, const std::string& name = "");
// The protocol with the teacher's map as target: rows from the benchmark's teacher_first_row on, every column, no mask.
Protocol against_teacher(Protocol protocol);

// The part of an image that the network and the metrics see; throws Error if the image is too small.
Rect frame_rect(const Protocol& protocol, ImageSize image);
// Throws Error, with the sample's list line, if its image, which is evaluated as it is stored, is too small for the
// frame.
void check_frame(const Protocol& protocol, const Sample& sample);
// The part of a frame that is compared.
Rect eval_rect(const Protocol& protocol, ImageSize frame);

// 1 where a pixel of the frame counts: inside the rectangle, and by the rule of kernels/depth_target.h within the range
// that the protocol's TruthRule says; a teacher's map is compared within min_depth and max_depth, as training takes it.
std::vector<uint8_t> valid_mask(const Protocol& protocol, ImageSize frame, std::span<const float> truth);

// The same for a part of a frame, where the range does not depend on the whole of it (by any TruthRule but
// kNoOutliers).
class ValidPixels {
 public:
  ValidPixels(const Protocol& protocol, ImageSize frame);
  // truth: of the pixels from `first` on, in row-major order; valid: one per truth, assigned.
  void find(size_t first, std::span<const float> truth, std::span<uint8_t> valid) const;

 private:
  ImageSize frame_;
  Rect rect_;
  DepthRange range_;
};

// One paragraph: frame, valid pixels, crop with its indices, clamp, alignment, what is particular to its metrics,
// averaging.
std::string describe(const Protocol& protocol);

}  // namespace depthstill
