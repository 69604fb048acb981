#include "engine/eval/evaluate.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/data/pixels.h"
#include "engine/eval/truth_file.h"
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

ImageScore compare(const Protocol& protocol, const EvalItem& item, const DepthMap& truth, DepthMap& prediction,
                   const EvaluateOptions& options) {
  prediction = resized(std::move(prediction), truth.size(), protocol.resize);
  check(prediction.size() == truth.size(), item.where, ": the prediction for ", item.name, " is ", prediction.size(),
        ", expected ", truth.size(), " (width x height)", options.size_advice);
  check_kind(protocol, prediction.kind, concat_text(item.where, ": the prediction for ", item.name));
  ImageScore result =
      score(protocol, concat_text(item.where, ": prediction for ", item.name), truth, prediction, options.scoring);
  result.metrics.name = item.name;
  return result;
}

TruthFile truth_file(const Protocol& protocol) {
  return protocol.target == Target::kTeacher ? TruthFile::kMap : find_benchmark(protocol.dataset).truth;
}

}  // namespace

DepthMap read_truth_frame(const Protocol& protocol, const EvalItem& item, const MapFormat& format, ImageSize raw_size) {
  const TruthFile kind = truth_file(protocol);
  check(kind != TruthFile::kWithMask || !item.mask.empty(), item.where,
        ": expected a third column, the mask of the truth, found none");
  const DepthMap truth = at_line(item.where, [&] {
    DepthMap map = read_truth(kind, item.truth, item.mask, format, raw_size);
    // Figures of a protocol are in metres: two maps of inverse depth agree in kind, and are refused all the same.
    check(map.kind == format.kind, item.truth, ": expected ", name_of(format.kind), ", found ", name_of(map.kind));
    return map;
  });
  return crop(truth, frame_rect(protocol, truth.size()));
}

namespace {

// The scores of each baseline image by image, and their means.
class BaselineTable {
 public:
  explicit BaselineTable(const Baselines* baselines) : baselines_(baselines) {
    if (baselines_ != nullptr) images_.resize(baselines_->each.size());
  }
  void add(const Protocol& protocol, const EvalItem& item, const DepthMap& truth) {
    for (size_t i = 0; i < images_.size(); ++i) {
      DepthMap map = baseline_map(baselines_->each[i], truth.size());
      images_[i].push_back(
          score(protocol, concat_text(item.where, ": ", baselines_->each[i].text), truth, map).metrics);
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

nlohmann::ordered_json values_of(const Metrics& metrics, std::span<const MetricField> fields) {
  nlohmann::ordered_json json;
  for (const MetricField& field : fields) json[field.name] = metrics.*field.value;  // NaN: null
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
    std::optional<DepthMap> made;  // before truth is read only if that needs its size
    ImageSize raw_size;
    if (truth_file(protocol) == TruthFile::kRawFloats) {
      const std::optional<ImageSize> size = options.truth_size ? options.truth_size(item) : std::nullopt;
      if (!size) made = predict(item);
      raw_size = size ? *size : made->size();
    }
    const DepthMap truth = read_truth_frame(protocol, item, options.truth_format, raw_size);
    DepthMap prediction = made ? std::move(*made) : predict(item);
    evaluation.predicted = prediction.kind;
    ImageScore found = compare(protocol, item, truth, prediction, options);
    if (options.observe) options.observe(item, truth, prediction, found.metrics);
    evaluation.images.push_back(std::move(found.metrics));
    if (found.centre) evaluation.centres.push_back(*found.centre);
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

std::vector<EvalItem> eval_items(const Dataset& data, const Protocol& protocol) {
  std::vector<EvalItem> items = eval_items(data, protocol.target);
  if (protocol.target == Target::kTeacher || find_benchmark(protocol.dataset).truth != TruthFile::kWithMask) {
    return items;
  }
  for (EvalItem& item : items) item.mask = data.extra_path(&item - items.data());
  return items;
}

std::string describe_data(const Dataset& data, const Protocol& protocol) {
  const DatasetSpec& spec = data.spec();
  const bool teacher = protocol.target == Target::kTeacher;
  const MapFormat& format = teacher ? spec.teacher->format : spec.depth;
  std::string text =
      concat_text("list ", std::filesystem::path(spec.list).filename().string(), ", ", data.size(), " lines; ",
                  teacher ? "teacher maps" : "truth", " in 1/", 1 / format.metres_per_unit, " m (integers) or ");
  if (format.metres_per_float_unit == 1) return text + "m (floats)";
  return text + concat_text("1/", 1 / format.metres_per_float_unit, " m (floats)");
}

FitSummary summarize_fits(const Evaluation& evaluation) {
  FitSummary summary;
  for (const ImageMetrics& image : evaluation.images) {
    if (!image.metrics) continue;
    ++summary.images;
    summary.negative_scale += image.fit.scale < 0;
    summary.limited_share += static_cast<double>(image.limited) / static_cast<double>(image.pixels);
  }
  if (summary.images > 0) summary.limited_share /= static_cast<double>(summary.images);
  return summary;
}

std::string describe(const Evaluation& evaluation) {
  std::string text = describe(evaluation.protocol);
  if (evaluation.predicted.quantity != row_of(evaluation.protocol.alignment).quantity) {
    text += concat_text("; predictions are ", name_of(evaluation.predicted),
                        is_inverted(evaluation.protocol, evaluation.predicted) ? ", inverted first" : ", not inverted");
  }
  for (const std::string& part : {evaluation.prediction, evaluation.list}) {
    if (!part.empty()) text += "; " + part;
  }
  return text;
}

namespace {

int64_t negative_pixels(const Evaluation& evaluation) {
  int64_t pixels = 0;
  for (const ImageMetrics& image : evaluation.images) pixels += image.negative;
  return pixels;
}

// Mean over the images that have one.
std::optional<double> mean_boundary_f1(const Evaluation& evaluation) {
  double sum = 0;
  int64_t images = 0;
  for (const ImageMetrics& image : evaluation.images) {
    if (!image.boundary_f1) continue;
    sum += *image.boundary_f1;
    ++images;
  }
  if (images == 0) return std::nullopt;
  return sum / static_cast<double>(images);
}

MetricsSummary mean_of(const std::vector<GlobalLocal>& centres, Metrics GlobalLocal::*part) {
  std::vector<ImageMetrics> images;
  for (const GlobalLocal& centre : centres) images.push_back({"", 0, centre.*part});
  return summarize(images);
}

constexpr std::array<std::pair<const char*, Metrics GlobalLocal::*>, 2> kCentres{
    {{"global", &GlobalLocal::global}, {"local", &GlobalLocal::local}}};

std::string fit_line(const Evaluation& evaluation) {
  const FitSummary fits = summarize_fits(evaluation);
  char share[32];
  std::snprintf(share, sizeof share, "%.2f", 100 * fits.limited_share);
  std::string text = concat_text(row_of(evaluation.protocol.alignment).name, ": ", fits.images, " images, ", share,
                                 " % of valid pixels changed by a limit");
  if (fits.negative_scale > 0) {
    text +=
        concat_text(", scale negative in ", fits.negative_scale, " (depth given for inverse depth, or the reverse?)");
  }
  return text + '\n';
}

std::string interval_lines(const Evaluation& evaluation) {
  std::string text = "95 % intervals of the mean over images, by bootstrap\n";
  for (size_t i = 0; i < evaluation.intervals.size(); ++i) {
    const MetricField& field = evaluation.protocol.rules->metrics[i];
    const auto [low, high] = evaluation.intervals[i];
    char line[96];
    std::snprintf(line, sizeof line, "%10s %.4f [%.4f, %.4f]\n", field.name, evaluation.summary.mean.*field.value, low,
                  high);
    text += line;
  }
  return text;
}

std::string centre_lines(const Evaluation& evaluation) {
  std::string text;
  for (const auto& [name, part] : kCentres) {
    const Metrics mean = mean_of(evaluation.centres, part).mean;
    char line[96];
    std::snprintf(line, sizeof line, "centre, %s fit: abs_rel %.4f, d1 %.4f\n", name, mean.abs_rel, mean.d1);
    text += line;
  }
  return text;
}

}  // namespace

std::string format_evaluation(const Evaluation& evaluation) {
  std::string text = describe(evaluation) + '\n';
  text += std::to_string(evaluation.summary.images) + " images";
  if (evaluation.summary.skipped) {
    text += ", " + std::to_string(evaluation.summary.skipped) + " left out: no valid pixel";
  }
  if (evaluation.without_truth) {
    text += ", " + std::to_string(evaluation.without_truth) + " left out: no ground truth listed";
  }
  text += '\n';
  if (evaluation.protocol.alignment != Alignment::kNone) text += fit_line(evaluation);
  if (const int64_t pixels = negative_pixels(evaluation); pixels > 0) {
    text += concat_text(pixels, " valid pixels have a depth <= 0, which d1 counts as correct, as MoGe does\n");
  }
  if (!evaluation.centres.empty()) text += centre_lines(evaluation);
  if (const std::optional<double> boundary = mean_boundary_f1(evaluation)) {
    text +=
        concat_text("boundary_f1 ", *boundary, ", of the whole frame; the rims of holes in truth are edges to it\n");
  }
  text += format_metrics(evaluation.summary.mean, evaluation.protocol.rules->metrics);
  if (!evaluation.intervals.empty()) text += interval_lines(evaluation);
  if (!evaluation.baselines.empty()) text += "without looking at an image, from " + evaluation.baseline_source + ":\n";
  for (const BaselineScore& baseline : evaluation.baselines) {
    text += format_values(baseline.summary.mean, evaluation.protocol.rules->metrics) + "  " + baseline.text + '\n';
  }
  return text;
}

std::string evaluation_json(const Evaluation& evaluation) {
  const Protocol& protocol = evaluation.protocol;
  nlohmann::ordered_json json;
  json["images"] = evaluation.summary.images;
  json.update(values_of(evaluation.summary.mean, protocol.rules->metrics));
  json["skipped"] = evaluation.summary.skipped;
  json["without_truth"] = evaluation.without_truth;
  json["dataset"] = protocol.dataset;
  json["protocol_name"] = protocol.rules->name;
  json["align"] = row_of(protocol.alignment).name;
  json["pred_kind"] = evaluation.predicted.quantity == Quantity::kDepth ? "depth" : "disparity";
  if (protocol.alignment != Alignment::kNone) {
    const FitSummary fits = summarize_fits(evaluation);
    json["fit"] = {
        {"images", fits.images}, {"negative_scale", fits.negative_scale}, {"limited_share", fits.limited_share}};
  }
  if (!protocol.rules->clamps) json["negative_pixels"] = negative_pixels(evaluation);
  if (const std::optional<double> boundary = mean_boundary_f1(evaluation)) json["boundary_f1"] = *boundary;
  for (const auto& [name, part] : kCentres) {
    if (evaluation.centres.empty()) break;
    const Metrics mean = mean_of(evaluation.centres, part).mean;
    json["global_local"][name] = {{"abs_rel", mean.abs_rel}, {"d1", mean.d1}};
  }
  for (size_t i = 0; i < evaluation.intervals.size(); ++i) {
    json["ci"][protocol.rules->metrics[i].name] = {evaluation.intervals[i].low, evaluation.intervals[i].high};
  }
  json["protocol"] = describe(evaluation);
  for (const BaselineScore& baseline : evaluation.baselines) {
    nlohmann::ordered_json& entry = json["baselines"][baseline.name] =
        values_of(baseline.summary.mean, protocol.rules->metrics);
    entry["text"] = baseline.text;
  }
  if (!evaluation.baselines.empty()) json["baselines"]["source"] = evaluation.baseline_source;
  return json.dump(2) + '\n';
}

}  // namespace depthstill
