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
#include "kernels/depth_target.h"

namespace depthstill {

enum class Target { kTruth, kTeacher };  // kTeacher: similarity to the teacher's maps (TIE-KD Tables 2 and 3)

struct Protocol {
  std::string dataset;               // name of the row it was made from (benchmarks.h)
  CropRule frame = CropRule::kNone;  // part of the image that the network and the metrics see
  const EvalBox* box = nullptr;      // null: the whole frame is compared
  Target target = Target::kTruth;
  double min_depth = 1e-3, max_depth = 80;  // predictions are clamped to it, truths outside it are left out
  Alignment alignment = Alignment::kNone;
  int first_row = 0;  // rows above are left out (teacher similarity: 110)
};

// The protocol of a benchmark, with its first box.
Protocol make_protocol(const std::string& dataset);
// The protocol with the teacher's map as target: rows from the benchmark's teacher_first_row on, every column.
Protocol against_teacher(Protocol protocol);

// The part of an image that the network and the metrics see; throws Error if the image is too small.
Rect frame_rect(const Protocol& protocol, ImageSize image);
// Throws Error, with the sample's list line, if its image, which is evaluated as it is stored, is too small for the
// frame.
void check_frame(const Protocol& protocol, const Sample& sample);
// The part of a frame that is compared.
Rect eval_rect(const Protocol& protocol, ImageSize frame);

// The depths that count by the rule of kernels/depth_target.h: ground truth without the ends of the protocol's range,
// as published, a teacher's with them, as training takes them.
DepthRange range_of(const Protocol& protocol);

// 1 where a pixel of the frame counts: inside the rectangle, and of a depth in range_of().
std::vector<uint8_t> valid_mask(const Protocol& protocol, ImageSize frame, std::span<const float> truth);

// Clamps to [min, max] in place, after the alignment. Throws Error at a NaN or infinity, naming `name`.
void prepare_prediction(const Protocol& protocol, const std::string& name, std::span<float> prediction,
                        std::span<const float> truth, std::span<const uint8_t> valid);

// One paragraph: frame, valid pixels, crop with its indices, clamp, scaling, averaging.
std::string describe(const Protocol& protocol);

}  // namespace depthstill
