// Depth of one image by a student: bring it to the network's size, normalise, run, undo; optionally averaged with the
// mirrored image (the reference's protocol). Each pass is clamped before averaging.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/device.h"
#include "engine/dtype.h"
#include "engine/eval/evaluate.h"
#include "models/depth_model.h"
#include "tools/recipe.h"
#include "tools/report.h"

namespace depthstill {

struct PredictOptions {
  bool flip = true;
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;  // of the activations
  // What the network is given. By default the student's input rule decides, with `side` in place of its size if that
  // is not 0. A recipe that resizes its images replaces the rule: images are resized to input_size, else by these
  // factors, and padded to the network's multiple; the depth map is resized back bilinearly.
  int side = 0;
  std::optional<ImageSize> input_size;
  double scale_height = 1, scale_width = 1;
};

// flip, and the size at which the recipe's training saw its images.
PredictOptions predict_options(const Recipe& recipe);

class Predictor {
 public:
  // The student must be in eval mode and on the device; it is not owned and may be trained between calls.
  Predictor(const DepthModel& student, const PredictOptions& options);

  // Of the image's size. Metres within the student's depth range; for a relative student its inverse depth, >= 0.
  DepthMap operator()(const Image8& image) const;
  bool relative() const { return student_.options().head == Head::kRelative; }

 private:
  DepthMap run_by_rule(const Image8& image, const InputRule& rule) const;
  DepthMap run_resized(const Image8& image) const;
  DepthMap run_network(const Tensor& image, ImageSize kept) const;  // rows and columns [0, kept) of its map

  const DepthModel& student_;
  PredictOptions options_;
};

using KeepPrediction = std::function<void(const EvalItem&, const DepthMap&)>;

// Scores a student on a data set. `panels`, unless null, receives `wanted_panels` pictures spread over the set, with
// the teacher's map where the data set has one, else ground truth.
Evaluation evaluate_student(const DepthModel& student, const Dataset& data, const Protocol& protocol,
                            const PredictOptions& options, size_t wanted_panels = 0,
                            std::vector<ReportPanel>* panels = nullptr, const KeepPrediction& keep = nullptr);

// What evaluate() needs of a data set: its truth, or with Target::kTeacher its teacher maps.
std::vector<EvalItem> eval_items(const Dataset& data, Target target);

// Repeats the last row and column until both sides are multiples of `multiple`.
Image8 pad_to_multiple(const Image8& image, int multiple);
Image8 mirror(const Image8& image);
// Bilinear: on pixel centres with edges repeated, or with the corners' centres aligned.
DepthMap resize_bilinear(const DepthMap& depth, ImageSize size, bool align_corners = false);

}  // namespace depthstill
