#include "tools/evaluate_model.h"

#include <filesystem>

#include "engine/eval/evaluation_text.h"
#include "tools/progress.h"

namespace depthstill {
namespace {

// Figures do not depend on the teacher: a map that cannot be read leaves the panel as it is.
void show_teacher(ReportPanel& panel, const std::string& path, const MapFormat& format, const Protocol& protocol) {
  try {
    const DepthMap map = read_map(path, format);
    panel.reference = crop(map, frame_rect(protocol, map.size()));
    panel.reference_label = "teacher";
  } catch (const Error& error) {
    log_line(concat_text("note: no teacher beside ", panel.name, ": ", error.what()));
  }
}

}  // namespace

Evaluation evaluate_model(const DepthModel& model, const Dataset& data, const Protocol& protocol,
                          const PredictOptions& options, const EvaluateExtras& extras) {
  const DatasetSpec& spec = data.spec();
  const Predictor predictor(model, options);
  check_kind(protocol, predictor.kind(kCanonicalFocal), model.name() + ": what it predicts");
  const bool aligned = row_of(protocol.alignment).ambiguity != Ambiguity::kNone;
  const std::vector<EvalItem> items = eval_items(data, protocol);
  const size_t stride = std::max<size_t>(1, items.size() / std::max<size_t>(1, extras.wanted_panels));
  size_t position = 0;
  Image8 frame;
  const auto predict = [&](const EvalItem& item) {
    const std::string path = data.image_path(&item - items.data());
    const Image8 image = at_line(item.where, [&] { return read_image(path); });
    frame = crop(image, frame_rect(protocol, image.size()));
    const double focal = data.entry(&item - items.data()).focal;
    if (!aligned) predictor.check_focal(focal, item.where);
    DepthMap prediction = predictor(frame, item.where + ": " + path, focal);
    if (extras.keep) extras.keep(item, prediction);
    return prediction;
  };
  EvaluateOptions evaluating;
  evaluating.progress = interruptible_progress("eval", "img");
  evaluating.truth_format = protocol.target == Target::kTeacher ? spec.teacher->format : spec.depth;
  evaluating.baselines = extras.baselines;
  evaluating.scoring = extras.scoring;
  evaluating.observe = [&](const EvalItem& item, const DepthMap& truth, const DepthMap& prediction,
                           const ImageMetrics&) {
    const size_t index = position++;
    if (extras.panels == nullptr || extras.panels->size() >= extras.wanted_panels || index % stride != 0) return;
    ReportPanel panel{item.name, frame, truth, prediction, ""};
    const std::string teacher = data.teacher_path(&item - items.data());
    if (std::filesystem::exists(teacher)) show_teacher(panel, teacher, spec.teacher->format, protocol);
    if (panel.reference.size() == prediction.size()) extras.panels->push_back(std::move(panel));
  };
  Evaluation evaluation = evaluate(protocol, items, predict, evaluating);
  const bool clamped = kind_of(model.options().head) == kMetricDepth;
  evaluation.prediction = !options.flip ? "one prediction per image, without its mirror image"
                          : clamped     ? "prediction averaged with that for the mirrored image, each clamped"
                                        : "prediction averaged with that for the mirrored image";
  evaluation.list = describe_data(data, protocol);
  return evaluation;
}

}  // namespace depthstill
