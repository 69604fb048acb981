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
#include "engine/eval/comparison.h"
#include "engine/eval/metrics.h"
#include "engine/eval/protocol.h"
#include "engine/eval/score.h"
#include "engine/eval/truth_file.h"
#include "engine/io/image.h"
#include "engine/io/map_file.h"

namespace depthstill {

struct EvalItem {
  std::string name;          // the image's path as listed
  std::string where;         // "list.txt:12", for messages
  std::string truth;         // path on disk of what to compare with; empty: the list says None
  std::string mask{};        // path on disk of the map that is 0 where truth does not count; empty: none
  std::string prediction{};  // path on disk of a stored prediction, for messages; empty: none
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
  std::vector<GlobalLocal> centres;      // of the images that have one, with ScoreOptions::local_fit
  std::vector<Interval> intervals;       // of the protocol's metrics, from bootstrap(); empty: not asked for
  int64_t drawn_scenes = 0;              // that the intervals are of draws of; 0: of draws of images
  std::optional<Comparison> comparison;  // with another system
  std::string prediction;            // text on how predictions were made, for the protocol's description; may be empty
  std::string list;                  // text on the list of images, likewise
  MapKind predicted = kMetricDepth;  // the kind of the predictions as they were given
  int64_t without_truth = 0;         // items passed over because the list has no truth for them
  std::vector<BaselineScore> baselines;  // on the same pixels, treated as predictions are; empty: none were given
  std::string baseline_source;           // "train.txt, 48 images"
};

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

// What an evaluation finds of one item.
struct ItemScore {
  ImageScore score;
  MapKind predicted = kMetricDepth;       // the kind of the prediction as it was given
  std::vector<ImageMetrics> baselines{};  // of each of EvaluateOptions::baselines
};
// truth, prediction: of the protocol's frame, or the prediction of another size that the protocol brings there; it
// becomes what was scored.
ItemScore score_item(const Protocol& protocol, const EvalItem& item, const DepthMap& truth, DepthMap& prediction,
                     const EvaluateOptions& options);
// What messages on an item's prediction begin with: the list's line, the image and, where there is one, the file.
std::string score_name(const EvalItem& item);
// Throws Error for a prediction that is not of the frame's size or that the protocol cannot make metres of.
void check_prediction(const Protocol& protocol, const EvalItem& item, const MapKind& kind, ImageSize size,
                      ImageSize frame, const EvaluateOptions& options);
// The evaluation made of the scores of all items, in order; nothing: one without truth.
Evaluation gather(const Protocol& protocol, std::vector<std::optional<ItemScore>> scores, const Baselines* baselines);

Evaluation evaluate(const Protocol& protocol, std::span<const EvalItem> items, const PredictItem& predict,
                    const EvaluateOptions& options);

// The size of truth that does not say it: options.truth_size's, else that of the prediction, which is made or opened
// for it. {} where the protocol's truth says its size.
ImageSize raw_truth_size(const Protocol& protocol, const EvalItem& item, const EvaluateOptions& options,
                         const std::function<ImageSize()>& prediction_size);
// The truth of an item in metres, of the whole image; raw_size: see TruthReader. Throws Error that names the list's
// line.
TruthReader open_truth(const Protocol& protocol, const EvalItem& item, const MapFormat& format, ImageSize raw_size);
// All of it within the protocol's frame.
DepthMap read_truth_frame(const Protocol& protocol, const EvalItem& item, const MapFormat& format,
                          ImageSize raw_size = {});

// The items of a data set: with its truth, or for Target::kTeacher with its teacher maps.
std::vector<EvalItem> eval_items(const Dataset& data, Target target);
// With masks, where the protocol's data set has them.
std::vector<EvalItem> eval_items(const Dataset& data, const Protocol& protocol);

}  // namespace depthstill
