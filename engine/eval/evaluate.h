// Scores depth maps against ground truth (or a teacher) under a protocol. Where the predictions come from, a model or
// stored files, is the caller's business.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/eval/baselines.h"
#include "engine/eval/metrics.h"
#include "engine/eval/protocol.h"
#include "engine/io/image.h"
#include "engine/io/map_file.h"

namespace depthstill {

struct EvalItem {
  std::string name;   // the image's path as listed
  std::string where;  // "list.txt:12", for messages
  std::string truth;  // path on disk of what to compare with; empty: the list says None
};

// The prediction for an item, of the size of the protocol's frame, in metres.
using PredictItem = std::function<DepthMap(const EvalItem&)>;

struct BaselineScore {
  std::string name, text;  // those of the Baseline
  MetricsSummary summary;
};

struct Evaluation {
  Protocol protocol;
  std::vector<ImageMetrics> images;  // metrics in the order of the items
  MetricsSummary summary;
  std::string prediction;     // text on how predictions were made, for the protocol's description; may be empty
  int64_t without_truth = 0;  // items passed over because the list has no truth for them
  std::vector<BaselineScore> baselines;  // on the same pixels, treated as predictions are; empty: none were given
  std::string baseline_source;           // "train.txt, 48 images"
};

struct EvaluateOptions {
  MapFormat truth_format;
  const Baselines* baselines = nullptr;  // scored beside the predictions
  // The evaluation calls this before each image and after the last, with the number of images done; what it throws ends
  // the evaluation. It may be empty.
  std::function<void(int64_t done, int64_t total)> progress;
  // The evaluation calls this after each image with what was compared, frame-sized.
  std::function<void(const EvalItem&, const DepthMap& truth, const DepthMap& prediction, const ImageMetrics&)> observe;
};

Evaluation evaluate(const Protocol& protocol, std::span<const EvalItem> items, const PredictItem& predict,
                    const EvaluateOptions& options);

// The items of a data set: with its truth, or for Target::kTeacher with its teacher maps.
std::vector<EvalItem> eval_items(const Dataset& data, Target target);

// describe(protocol), and how predictions were made.
std::string describe(const Evaluation& evaluation);

// Protocol, counts, the nine values and those of the baselines: what `eval` prints, and the JSON of its contract, which
// has the key "baselines" only where there are some.
std::string format_evaluation(const Evaluation& evaluation);
std::string evaluation_json(const Evaluation& evaluation);

}  // namespace depthstill
