// Scores a network on a data set, with pictures for a report.
#pragma once

#include <functional>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/eval/evaluate.h"
#include "models/predictor.h"
#include "tools/report/report.h"

namespace depthstill {

using KeepPrediction = std::function<void(const EvalItem&, const DepthMap&)>;

// `panels`, unless null, receives `wanted_panels` pictures spread over the set, with the teacher's map where the data
// set has one, else ground truth.
Evaluation evaluate_model(const DepthModel& model, const Dataset& data, const Protocol& protocol,
                          const PredictOptions& options, size_t wanted_panels = 0,
                          std::vector<ReportPanel>* panels = nullptr, const KeepPrediction& keep = nullptr);

}  // namespace depthstill
