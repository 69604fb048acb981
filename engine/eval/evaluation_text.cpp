#include "engine/eval/evaluation_text.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {

std::string describe_data(const Dataset& data, const Protocol& protocol) {
  const DatasetSpec& spec = data.spec();
  const bool teacher = protocol.target == Target::kTeacher;
  const MapFormat& format = teacher ? spec.teacher->format : spec.depth;
  const std::string list =
      concat_text("list ", std::filesystem::path(spec.list).filename().string(), ", ", data.size(), " lines; ");
  if (!teacher && find_benchmark(protocol.dataset).truth == TruthFile::kLogPng) {
    return list + "truth in metres, logarithms between each file's near and far";
  }
  std::string text =
      concat_text(list, teacher ? "teacher maps" : "truth", " in 1/", 1 / format.metres_per_unit, " m (integers) or ");
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

nlohmann::ordered_json values_of(const Metrics& metrics, std::span<const MetricField> fields) {
  nlohmann::ordered_json json;
  for (const MetricField& field : fields) json[field.name] = metrics.*field.value;  // NaN: null
  return json;
}

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

std::string drawn_text(const Evaluation& evaluation) {
  if (evaluation.drawn_scenes == 0) return " over images";
  return concat_text(" over ", evaluation.drawn_scenes, " scenes");
}

std::string comparison_lines(const Evaluation& evaluation) {
  const Comparison& comparison = *evaluation.comparison;
  std::string text = concat_text("against ", comparison.other, ", on the same ", comparison.images,
                                 " images: mean difference with its 95 % interval, by bootstrap",
                                 drawn_text(evaluation), "; share of images on which it is better than the other\n");
  for (const ComparedMetric& metric : comparison.metrics) {
    char line[128];
    std::snprintf(line, sizeof line, "%10s %+.4f [%+.4f, %+.4f]  %5.1f %%\n", metric.field.name, metric.difference,
                  metric.interval.low, metric.interval.high, 100 * metric.better_share);
    text += line;
  }
  return text;
}

nlohmann::ordered_json comparison_json(const Comparison& comparison) {
  nlohmann::ordered_json json{{"other", comparison.other}, {"images", comparison.images}};
  for (const ComparedMetric& metric : comparison.metrics) {
    json[metric.field.name] = {{"difference", metric.difference},
                               {"ci", {metric.interval.low, metric.interval.high}},
                               {"better_share", metric.better_share}};
  }
  return json;
}

std::string interval_lines(const Evaluation& evaluation) {
  std::string text = "95 % intervals of the mean over images, by bootstrap" + drawn_text(evaluation) + '\n';
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
  if (evaluation.comparison) text += comparison_lines(evaluation);
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
  if (protocol.metric_space == Quantity::kInverseDepth) json["metric_space"] = "disparity";
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
  if (evaluation.drawn_scenes > 0) json["scenes"] = evaluation.drawn_scenes;
  if (evaluation.comparison) json["compare"] = comparison_json(*evaluation.comparison);
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
