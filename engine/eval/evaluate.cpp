#include "engine/eval/evaluate.h"

#include <optional>
#include <utility>

#include "engine/data/pixels.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

DepthMap resized(DepthMap map, ImageSize size, PredictionResize how) {
  if (how == PredictionResize::kNone || map.size() == size) return map;
  if (how != PredictionResize::kNearest) return resize_bilinear(map, size, how == PredictionResize::kCorners);
  DepthMap result{size.width, size.height, {}, map.kind};
  for (int64_t y = 0; y < size.height; ++y) {
    const float* row = &map.values[static_cast<size_t>(y * map.height / size.height * map.width)];
    for (int64_t x = 0; x < size.width; ++x) result.values.push_back(row[x * map.width / size.width]);
  }
  return result;
}

TruthFile truth_file(const Protocol& protocol) {
  return protocol.target == Target::kTeacher ? TruthFile::kMap : find_benchmark(protocol.dataset).truth;
}

}  // namespace

ImageSize raw_truth_size(const Protocol& protocol, const EvalItem& item, const EvaluateOptions& options,
                         const std::function<ImageSize()>& prediction_size) {
  if (truth_file(protocol) != TruthFile::kRawFloats) return {};
  const std::optional<ImageSize> size = options.truth_size ? options.truth_size(item) : std::nullopt;
  return size ? *size : prediction_size();
}

TruthReader open_truth(const Protocol& protocol, const EvalItem& item, const MapFormat& format, ImageSize raw_size) {
  const TruthFile kind = truth_file(protocol);
  check(kind != TruthFile::kWithMask || !item.mask.empty(), item.where,
        ": expected a third column, the mask of the truth, found none");
  return at_line(item.where, [&] {
    TruthReader truth(kind, item.truth, item.mask, format, raw_size);
    // Figures of a protocol are in metres: two maps of inverse depth agree in kind, and are refused all the same.
    check(truth.kind() == format.kind, item.truth, ": expected ", name_of(format.kind), ", found ",
          name_of(truth.kind()));
    return truth;
  });
}

DepthMap read_truth_frame(const Protocol& protocol, const EvalItem& item, const MapFormat& format, ImageSize raw_size) {
  const TruthReader truth = open_truth(protocol, item, format, raw_size);
  const Rect frame = frame_rect(protocol, truth.size());
  return crop(at_line(item.where, [&] { return read_truth(truth); }), frame);
}

std::string score_name(const EvalItem& item) {
  const std::string file = item.prediction.empty() ? "" : concat_text(" (", item.prediction, ')');
  return concat_text(item.where, ": prediction for ", item.name, file);
}

void check_prediction(const Protocol& protocol, const EvalItem& item, const MapKind& kind, ImageSize size,
                      ImageSize frame, const EvaluateOptions& options) {
  check(size == frame, item.where, ": the prediction for ", item.name, " is ", size, ", expected ", frame,
        " (width x height)", options.size_advice);
  check_kind(protocol, kind, concat_text(item.where, ": the prediction for ", item.name));
}

ItemScore score_item(const Protocol& protocol, const EvalItem& item, const DepthMap& truth, DepthMap& prediction,
                     const EvaluateOptions& options) {
  ItemScore result;
  result.predicted = prediction.kind;
  prediction = resized(std::move(prediction), truth.size(), protocol.resize);
  check_prediction(protocol, item, prediction.kind, prediction.size(), truth.size(), options);
  result.score = score(protocol, score_name(item), truth, prediction, options.scoring);
  result.score.metrics.name = item.name;
  if (options.baselines == nullptr) return result;
  for (const Baseline& baseline : options.baselines->each) {
    DepthMap map = baseline_map(baseline, truth.size());
    result.baselines.push_back(score(protocol, concat_text(item.where, ": ", baseline.text), truth, map).metrics);
  }
  return result;
}

Evaluation gather(const Protocol& protocol, std::vector<std::optional<ItemScore>> scores, const Baselines* baselines) {
  Evaluation evaluation;
  evaluation.protocol = protocol;
  std::vector<std::vector<ImageMetrics>> of_baselines(baselines == nullptr ? 0 : baselines->each.size());
  for (std::optional<ItemScore>& item : scores) {
    if (!item) {
      ++evaluation.without_truth;
      continue;
    }
    evaluation.predicted = item->predicted;
    evaluation.images.push_back(std::move(item->score.metrics));
    if (item->score.centre) evaluation.centres.push_back(*item->score.centre);
    for (size_t i = 0; i < of_baselines.size(); ++i) of_baselines[i].push_back(std::move(item->baselines[i]));
  }
  evaluation.summary = summarize(evaluation.images);
  if (baselines == nullptr) return evaluation;
  evaluation.baseline_source = concat_text(baselines->list, ", ", baselines->images, " images");
  for (size_t i = 0; i < of_baselines.size(); ++i) {
    const Baseline& baseline = baselines->each[i];
    evaluation.baselines.push_back({baseline.name, baseline.text, summarize(of_baselines[i])});
  }
  return evaluation;
}

Evaluation evaluate(const Protocol& protocol, std::span<const EvalItem> items, const PredictItem& predict,
                    const EvaluateOptions& options) {
  std::vector<std::optional<ItemScore>> scores(items.size());
  const auto report = [&](size_t done) {
    if (options.progress) options.progress(static_cast<int64_t>(done), static_cast<int64_t>(items.size()));
  };
  for (size_t i = 0; i < items.size(); ++i) {
    report(i);
    const EvalItem& item = items[i];
    if (item.truth.empty()) continue;
    std::optional<DepthMap> made;  // before truth is read only if that needs its size
    const ImageSize raw_size = raw_truth_size(protocol, item, options, [&] {
      made = predict(item);
      return made->size();
    });
    const DepthMap truth = read_truth_frame(protocol, item, options.truth_format, raw_size);
    DepthMap prediction = made ? std::move(*made) : predict(item);
    scores[i] = score_item(protocol, item, truth, prediction, options);
    if (options.observe) options.observe(item, truth, prediction, scores[i]->score.metrics);
  }
  report(items.size());
  return gather(protocol, std::move(scores), options.baselines);
}

std::vector<EvalItem> eval_items(const Dataset& data, Target target) {
  const bool teacher = target == Target::kTeacher;
  check(!teacher || data.spec().teacher, data.spec().list, ": expected a folder of teacher maps, found none");
  std::vector<EvalItem> items;
  for (int64_t i = 0; i < data.size(); ++i) {
    items.push_back({data.entry(i).image, data.where(i), teacher ? data.teacher_path(i) : data.depth_path(i)});
  }
  return items;
}

std::vector<EvalItem> eval_items(const Dataset& data, const Protocol& protocol) {
  std::vector<EvalItem> items = eval_items(data, protocol.target);
  if (protocol.target == Target::kTeacher || find_benchmark(protocol.dataset).truth != TruthFile::kWithMask) {
    return items;
  }
  for (EvalItem& item : items) item.mask = data.extra_path(&item - items.data());
  return items;
}

}  // namespace depthstill
