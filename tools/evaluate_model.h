// Scores a network on a data set, with pictures for a report. A relative network needs an affine alignment; Depth
// Anything 3's metric one, without an alignment, the focal lengths of the list.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/eval/evaluate.h"
#include "models/predictor.h"
#include "tools/report/report.h"

namespace depthstill {

// What else is wanted of an evaluation; pointers may be null.
struct EvaluateExtras {
  // Receives pictures of at most `wanted_panels` images, with the teacher's map where the data set has one, else ground
  // truth: half of them are worst in the metric `worst_by`, if given, and come first; the others are spread over the
  // set.
  std::vector<ReportPanel>* panels = nullptr;
  size_t wanted_panels = 0;
  std::string worst_by = {};
  const Baselines* baselines = nullptr;
  std::function<void(const EvalItem&, const DepthMap&)> keep = {};  // gets each prediction
  ScoreOptions scoring = {};
};

Evaluation evaluate_model(const DepthModel& model, const Dataset& data, const Protocol& protocol,
                          const PredictOptions& options, const EvaluateExtras& extras = {});

}  // namespace depthstill
