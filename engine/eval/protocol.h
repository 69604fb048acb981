// Which pixels an evaluation compares and how: published depth figures differ by such details, so every result is
// printed together with describe().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/data/sample.h"

namespace depthstill {

// Half-open window of a map: rows [top, bottom), columns [left, right).
struct Window {
  int top = 0, bottom = 0, left = 0, right = 0;
  int height() const { return bottom - top; }
  int width() const { return right - left; }
  bool operator==(const Window&) const = default;
};

enum class EvalFrame { kImage, kKittiBenchmark };  // kKittiBenchmark: the 352 x 1216 bottom-centre crop
enum class EvalCrop { kNone, kGarg, kEigen };
enum class Target { kTruth, kTeacher };  // kTeacher: similarity to the teacher's maps (TIE-KD Tables 2 and 3)

struct Protocol {
  std::string dataset = "plain";  // "kitti", "nyu" or "plain"
  EvalFrame frame = EvalFrame::kImage;
  EvalCrop crop = EvalCrop::kNone;
  Target target = Target::kTruth;
  double min_depth = 1e-3, max_depth = 80;  // predictions are clamped to it, truths outside it are left out
  bool median_scaling = false;              // multiply each prediction by median(truth) / median(prediction)
  int first_row = 0;                        // rows above are left out (teacher similarity: 110)
};

// "kitti": 352 x 1216 frame, Garg crop, 80 m. "nyu": whole image, Eigen crop, 10 m. "plain": every pixel, 80 m.
Protocol make_protocol(const std::string& dataset);
// The protocol with the teacher's map as target: rows from 110 on for KITTI, every column, no mask.
Protocol against_teacher(Protocol protocol);

EvalCrop parse_eval_crop(const std::string& text);  // "none", "garg", "eigen"

// The part of a height x width image that the network and the metrics see; throws Error if it is too small.
Window frame_window(EvalFrame frame, int height, int width);
// Throws Error, with the sample's list line, if its image, which is evaluated as it is stored, is too small for the
// frame.
void check_frame(EvalFrame frame, const Sample& sample);
// The part of a height x width frame that is compared.
Window eval_window(const Protocol& protocol, int height, int width);

// 1 where a pixel of the frame counts: inside the window and, against ground truth, min < truth < max.
std::vector<uint8_t> valid_mask(const Protocol& protocol, int height, int width, std::span<const float> truth);

// Clamps to [min, max] in place, after median scaling if that is on. Throws Error at a NaN or infinity, naming `name`.
void prepare_prediction(const Protocol& protocol, const std::string& name, std::span<float> prediction,
                        std::span<const float> truth, std::span<const uint8_t> valid);

// One paragraph: frame, valid pixels, crop with its indices, clamp, scaling, averaging.
std::string describe(const Protocol& protocol);

}  // namespace depthstill
