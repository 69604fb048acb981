// Scores depth maps against ground truth (or a teacher) under a protocol. Where the predictions come from, a model or
// stored files, is the caller's business.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/eval/baselines.h"
#include "engine/eval/bootstrap.h"
#include "engine/eval/metrics.h"
#include "engine/eval/protocol.h"
#include "engine/eval/score.h"
#include "engine/io/image.h"
#include "engine/io/map_file.h"

namespace depthstill {

struct EvalItem {
  std::string name;    // the image's path as listed
  std::string where;   // "list.txt:12", for messages
  std::string truth;   // path on disk of what to compare with; empty: the list says None
  std::string mask{};  // path on disk of the map that is 0 where truth does not count; empty: none
};

// The prediction for an item, of the size of the protocol's frame, of a kind that the protocol can score (check_kind).
using PredictItem = std::function<DepthMap(const EvalItem&)>;

struct BaselineScore {
  std::string name, text;  // those of the Baseline
  MetricsSummary summary;
};

struct Evaluation {
  Protocol protocol;
  std::vector<ImageMetrics> images;  // metrics in the order of the items
  MetricsSummary summary;
  std::vector<GlobalLocal> centres;  // of the images that have one, with ScoreOptions::local_fit
  std::vector<Interval> intervals;   // of the protocol's metrics, from bootstrap(); empty: not asked for
  std::string prediction;            // text on how predictions were made, for the protocol's description; may be empty
  std::string list;                  // text on the list of images, likewise
  MapKind predicted = kMetricDepth;  // the kind of the predictions as they were given
  int64_t without_truth = 0;         // items passed over because the list has no truth for them
  std::vector<BaselineScore> baselines;  // on the same pixels, treated as predictions are; empty: none were given
  std::string baseline_source;           // "train.txt, 48 images"
};

// How alignments went, over the images that were scored.
struct FitSummary {
  int64_t images = 0, negative_scale = 0;
  double limited_share = 0;  // mean over images of the share of valid pixels whose depth a limit has changed
};
FitSummary summarize_fits(const Evaluation& evaluation);

struct EvaluateOptions {
  MapFormat truth_format;
  const Baselines* baselines = nullptr;  // scored beside the predictions
  // The size of truth without a header (TruthFile::kRawFloats); where it is empty or returns nothing, the prediction's.
  std::function<std::optional<ImageSize>(const EvalItem&)> truth_size;
  ScoreOptions scoring;
  std::string size_advice;  // ends the message on a prediction of another size than the frame
  // The evaluation calls this before each image and after the last, with the number of images done; what it throws ends
  // the evaluation. It may be empty.
  std::function<void(int64_t done, int64_t total)> progress;
  // The evaluation calls this after each image with what was compared, frame-sized.
  std::function<void(const EvalItem&, const DepthMap& truth, const DepthMap& prediction, const ImageMetrics&)> observe;
};

Evaluation evaluate(const Protocol& protocol, std::span<const EvalItem> items, const PredictItem& predict,
                    const EvaluateOptions& options);

// The truth of an item within the protocol's frame, in metres. raw_size: see read_truth().
DepthMap read_truth_frame(const Protocol& protocol, const EvalItem& item, const MapFormat& format,
                          ImageSize raw_size = {});

// The items of a data set: with its truth, or for Target::kTeacher with its teacher maps.
std::vector<EvalItem> eval_items(const Dataset& data, Target target);
// With masks, where the protocol's data set has them.
std::vector<EvalItem> eval_items(const Dataset& data, const Protocol& protocol);
// "list test.txt, 697 lines; truth in 1/256 m": what describe(Evaluation) says of the data.
std::string describe_data(const Dataset& data, const Protocol& protocol);

// describe(protocol), and how predictions were made.
std::string describe(const Evaluation& evaluation);

// Protocol, counts, the protocol's metrics and those of the baselines: what `eval` prints, and the JSON of its
// contract, which has the key "baselines" only where there are some.
std::string format_evaluation(const Evaluation& evaluation);
std::string evaluation_json(const Evaluation& evaluation);

}  // namespace depthstill
