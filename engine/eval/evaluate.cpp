#include "engine/eval/evaluate.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "engine/data/pixels.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

ImageMetrics score(const Protocol& protocol, const EvalItem& item, const DepthMap& truth, DepthMap& prediction) {
  check(prediction.size() == truth.size(), item.where, ": the prediction for ", item.name, " is ", prediction.size(),
        ", expected ", truth.size(), " (width x height)");
  check(prediction.kind == truth.kind, item.where, ": the prediction for ", item.name, " is ", name_of(prediction.kind),
        ", expected ", name_of(truth.kind));
  const std::vector<uint8_t> valid = valid_mask(protocol, truth.size(), truth.values);
  prepare_prediction(protocol, concat_text(item.where, ": prediction for ", item.name), prediction.values, truth.values,
                     valid);
  ImageMetrics result{item.name, std::accumulate(valid.begin(), valid.end(), int64_t{0}), std::nullopt};
  result.metrics = compute_metrics(prediction.values, truth.values, valid);
  return result;
}

// Figures of a protocol are in metres: two maps of inverse depth agree in kind, and are refused all the same.
DepthMap read_truth(const EvalItem& item, const MapFormat& format) {
  return at_line(item.where, [&] {
    DepthMap truth = read_map(item.truth, format);
    check(truth.kind == format.kind, item.truth, ": expected ", name_of(format.kind), ", found ", name_of(truth.kind));
    return truth;
  });
}

// The scores of each baseline image by image, and their means.
class BaselineTable {
 public:
  explicit BaselineTable(const Baselines* baselines) : baselines_(baselines) {
    if (baselines_ != nullptr) images_.resize(baselines_->each.size());
  }
  void add(const Protocol& protocol, const EvalItem& item, const DepthMap& truth) {
    for (size_t i = 0; i < images_.size(); ++i) {
      DepthMap map = baseline_map(baselines_->each[i], truth.size());
      images_[i].push_back(score(protocol, item, truth, map));
    }
  }
  void finish(Evaluation& evaluation) const {
    if (baselines_ == nullptr) return;
    evaluation.baseline_source = concat_text(baselines_->list, ", ", baselines_->images, " images");
    for (size_t i = 0; i < images_.size(); ++i) {
      const Baseline& baseline = baselines_->each[i];
      evaluation.baselines.push_back({baseline.name, baseline.text, summarize(images_[i])});
    }
  }

 private:
  const Baselines* baselines_;
  std::vector<std::vector<ImageMetrics>> images_;
};

nlohmann::ordered_json values_of(const Metrics& metrics) {
  nlohmann::ordered_json json;
  for (const MetricField& field : kMetricFields) json[field.name] = metrics.*field.value;  // NaN: null
  return json;
}

}  // namespace

Evaluation evaluate(const Protocol& protocol, std::span<const EvalItem> items, const PredictItem& predict,
                    const EvaluateOptions& options) {
  Evaluation evaluation;
  evaluation.protocol = protocol;
  BaselineTable baselines(options.baselines);
  const auto report = [&](int64_t done) {
    if (options.progress) options.progress(done, static_cast<int64_t>(items.size()));
  };
  for (const EvalItem& item : items) {
    report(&item - items.data());
    if (item.truth.empty()) {
      ++evaluation.without_truth;
      continue;
    }
    DepthMap truth = read_truth(item, options.truth_format);
    truth = crop(truth, frame_rect(protocol, truth.size()));
    DepthMap prediction = predict(item);
    const ImageMetrics metrics = score(protocol, item, truth, prediction);
    if (options.observe) options.observe(item, truth, prediction, metrics);
    evaluation.images.push_back(metrics);
    baselines.add(protocol, item, truth);
  }
  report(static_cast<int64_t>(items.size()));
  evaluation.summary = summarize(evaluation.images);
  baselines.finish(evaluation);
  return evaluation;
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

std::string describe(const Evaluation& evaluation) {
  return describe(evaluation.protocol) + (evaluation.prediction.empty() ? "" : "; " + evaluation.prediction);
}

std::string format_evaluation(const Evaluation& evaluation) {
  std::string text = describe(evaluation) + '\n';
  text += std::to_string(evaluation.summary.images) + " images";
  if (evaluation.summary.skipped) {
    text += ", " + std::to_string(evaluation.summary.skipped) + " left out: no valid pixel";
  }
  if (evaluation.without_truth) {
    text += ", " + std::to_string(evaluation.without_truth) + " left out: no ground truth listed";
  }
  text += '\n' + format_metrics(evaluation.summary.mean);
  if (!evaluation.baselines.empty()) text += "without looking at an image, from " + evaluation.baseline_source + ":\n";
  for (const BaselineScore& baseline : evaluation.baselines) {
    text += format_values(baseline.summary.mean) + "  " + baseline.text + '\n';
  }
  return text;
}

std::string evaluation_json(const Evaluation& evaluation) {
  nlohmann::ordered_json json;
  json["images"] = evaluation.summary.images;
  json.update(values_of(evaluation.summary.mean));
  json["skipped"] = evaluation.summary.skipped;
  json["without_truth"] = evaluation.without_truth;
  json["protocol"] = describe(evaluation);
  for (const BaselineScore& baseline : evaluation.baselines) {
    nlohmann::ordered_json& entry = json["baselines"][baseline.name] = values_of(baseline.summary.mean);
    entry["text"] = baseline.text;
  }
  if (!evaluation.baselines.empty()) json["baselines"]["source"] = evaluation.baseline_source;
  return json.dump(2) + '\n';
}

}  // namespace depthstill
