#include "tools/evaluate_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

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

// The panels that extras ask for, of images that come one after another.
class Panels {
 public:
  Panels(const EvaluateExtras& extras, size_t images)
      : field_(metric_field(extras.worst_by.empty() ? "abs_rel" : extras.worst_by)),
        wanted_worst_(extras.worst_by.empty() ? 0 : extras.wanted_panels / 2),
        wanted_spread_(extras.wanted_panels - wanted_worst_),
        stride_(std::max<size_t>(1, images / std::max<size_t>(1, wanted_spread_))) {}

  // `make` gives the panel, or an empty reference where there is none to see.
  void add(const ImageMetrics& image, const std::function<ReportPanel()>& make) {
    const bool spread = position_++ % stride_ == 0 && spread_.size() < wanted_spread_;
    const double value = image.metrics ? (*image.metrics).*field_.value : kNone;
    const double badness = field_.lower_is_better ? value : -value;  // NaN compares with nothing
    const auto place =
        std::find_if(worst_.begin(), worst_.end(), [&](const Bad& bad) { return badness > bad.badness; });
    const bool is_bad = std::isfinite(badness) && (place != worst_.end() || worst_.size() < wanted_worst_);
    if (!spread && !is_bad) return;
    ReportPanel panel = make();
    if (panel.reference.size() != panel.prediction.size()) return;
    if (spread) spread_.push_back(panel);
    if (!is_bad) return;
    worst_.insert(place, {badness, std::move(panel)});
    if (worst_.size() > wanted_worst_) worst_.pop_back();
  }

  std::vector<ReportPanel> take() {
    std::vector<ReportPanel> panels;
    for (Bad& bad : worst_) panels.push_back(std::move(bad.panel));
    for (ReportPanel& panel : spread_) {
      const bool shown =
          std::any_of(panels.begin(), panels.end(), [&](const ReportPanel& other) { return other.name == panel.name; });
      if (!shown) panels.push_back(std::move(panel));
    }
    return panels;
  }

 private:
  struct Bad {
    double badness;
    ReportPanel panel;
  };
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  const MetricField& field_;
  const size_t wanted_worst_, wanted_spread_, stride_;
  size_t position_ = 0;
  std::vector<Bad> worst_;  // worst first
  std::vector<ReportPanel> spread_;
};

}  // namespace

Evaluation evaluate_model(const DepthModel& model, const Dataset& data, const Protocol& protocol,
                          const PredictOptions& options, const EvaluateExtras& extras) {
  const DatasetSpec& spec = data.spec();
  const Predictor predictor(model, options);
  check_kind(protocol, predictor.kind(kCanonicalFocal), model.name() + ": what it predicts");
  const bool aligned = row_of(protocol.alignment).ambiguity != Ambiguity::kNone;
  const std::vector<EvalItem> items = eval_items(data, protocol);
  Panels panels(extras, items.size());
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
                           const ImageMetrics& image) {
    if (extras.panels == nullptr) return;
    panels.add(image, [&] {
      ReportPanel panel{item.name, frame, truth, prediction, ""};
      const std::string teacher = data.teacher_path(&item - items.data());
      if (std::filesystem::exists(teacher)) show_teacher(panel, teacher, spec.teacher->format, protocol);
      return panel;
    });
  };
  Evaluation evaluation = evaluate(protocol, items, predict, evaluating);
  if (extras.panels != nullptr) *extras.panels = panels.take();
  const bool clamped = kind_of(model.options().head) == kMetricDepth;
  evaluation.prediction = !options.flip ? "one prediction per image, without its mirror image"
                          : clamped     ? "prediction averaged with that for the mirrored image, each clamped"
                                        : "prediction averaged with that for the mirrored image";
  evaluation.list = describe_data(data, protocol);
  return evaluation;
}

}  // namespace depthstill
