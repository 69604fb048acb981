#include "engine/eval/protocols.h"

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();
constexpr CropRule kKb = CropRule::kKittiBenchmark, kWhole = CropRule::kNone;

constexpr std::array<MetricField, 2> kMogeMetrics{{kEvalFields[0], kEvalFields[6]}};
static_assert(kMogeMetrics[0].value == &Metrics::abs_rel && kMogeMetrics[1].value == &Metrics::d1);
constexpr std::array<MetricField, 6> kUltralyticsMetrics{
    {kEvalFields[0], kEvalFields[2], kEvalFields[5], kEvalFields[6], kEvalFields[7], kEvalFields[8]}};
static_assert(kUltralyticsMetrics[1].value == &Metrics::rmse && kUltralyticsMetrics[2].value == &Metrics::silog);

ProtocolRow tie_kd() {
  ProtocolRow row{.name = "tie-kd",
                  .citation = "TIE-KD (Choi et al. 2023) by AdaBins' and BTS' evaluation",
                  .sets = {{"kitti", kKb, "garg", TruthRule::kInside, 1e-3, 80},
                           {"nyu", kWhole, "eigen", TruthRule::kInside, 1e-3, 10},
                           {"plain", kWhole, "none", TruthRule::kInside, 1e-3, 80}},
                  .metrics = kEvalFields};
  return row;
}

ProtocolRow marigold() {
  ProtocolRow row{.name = "marigold",
                  .citation = "Marigold (Ke et al. 2024), GenPercept, Distill Any Depth",
                  .sets = {{"kitti", kKb, "eigen", TruthRule::kInside, 1e-5, 80},
                           {"nyu", kWhole, "eigen", TruthRule::kInside, 1e-3, 10},
                           {"eth3d", kWhole, "none", TruthRule::kInside, 1e-5, kNoLimit, 1024},
                           {"scannet", kWhole, "none", TruthRule::kInside, 1e-3, 10},
                           {"diode", kWhole, "none", TruthRule::kMask, 0.6, 350},
                           {"plain", kWhole, "none", TruthRule::kInside, 1e-3, 80}},
                  .metrics = kEvalFields};
  return row;
}

ProtocolRow monodepth2() {
  ProtocolRow row{.name = "monodepth2",
                  .citation = "Monodepth2 (Godard et al. 2019): Garg et al. 2016 on the full frame",
                  .sets = {{"kitti", kWhole, "garg", TruthRule::kInside, 1e-3, 80}},
                  .metrics = kEvalFields};
  row.resize = PredictionResize::kHalfPixel;
  row.predicts = Quantity::kInverseDepth;
  return row;
}

ProtocolRow dav2_metric() {
  ProtocolRow row{.name = "dav2-metric",
                  .citation = "Depth Anything V2, metric depth (Yang et al. 2024)",
                  .sets = {{"kitti", kWhole, "none", TruthRule::kWithin, 1e-3, 80},
                           {"nyu", kWhole, "none", TruthRule::kWithin, 1e-3, 20},
                           {"scannet", kWhole, "none", TruthRule::kWithin, 1e-3, 20},
                           {"plain", kWhole, "none", TruthRule::kWithin, 1e-3, 80}},
                  .metrics = kMetricFields};
  row.metric_rule.silog_mean = 0.5;
  row.metric_rule.silog_factor = 1;
  row.clamps = false;
  row.least_pixels = 10;
  row.resize = PredictionResize::kCorners;
  return row;
}

ProtocolRow moge() {
  ProtocolRow row{.name = "moge",
                  .citation = "MoGe (Wang et al. 2025), on the sets' own files",
                  .sets = {},
                  .metrics = kMogeMetrics};
  for (const char* set : {"kitti", "nyu", "eth3d", "scannet", "diode", "moge", "plain"}) {
    row.sets.push_back({set, kWhole, "none", TruthRule::kNoOutliers, 0, kNoLimit});
  }
  row.metric_rule.abs_rel_offset = 1e-6;
  row.clamps = false;
  row.fits_positive = false;
  row.least_inverse = 0;
  row.l1_on_grid = true;
  return row;
}

ProtocolRow ultralytics() {
  ProtocolRow row{.name = "ultralytics",
                  .citation = "Ultralytics' DepthMetrics",
                  .sets = {{"kitti", kWhole, "none", TruthRule::kInside, 1e-3, 80},
                           {"nyu", kWhole, "none", TruthRule::kInside, 1e-3, 10},
                           {"plain", kWhole, "none", TruthRule::kInside, 1e-3, 80}},
                  .metrics = kUltralyticsMetrics};
  row.median = {true, 1e-3f};
  row.least_pixels = 10;
  row.nonfinite_to_limits = true;
  return row;
}

const std::vector<ProtocolRow>& table() {
  static const std::vector<ProtocolRow> rows = {tie_kd(),      marigold(), monodepth2(),
                                                dav2_metric(), moge(),     ultralytics()};
  return rows;
}

const ProtocolSet* set_of(const ProtocolRow& protocol, std::string_view dataset) {
  const auto found = std::find_if(protocol.sets.begin(), protocol.sets.end(),
                                  [&](const ProtocolSet& set) { return set.dataset == dataset; });
  return found == protocol.sets.end() ? nullptr : &*found;
}

constexpr std::array<PredictionResizeRow, 4> kResizes{{
    {PredictionResize::kNone, "none", "not resized"},
    {PredictionResize::kHalfPixel, "half-pixel", "resized bilinearly on pixel centres"},
    {PredictionResize::kCorners, "corners", "resized bilinearly with corners aligned"},
    {PredictionResize::kNearest, "nearest", "resized to the nearest pixel"},
}};

}  // namespace

std::span<const PredictionResizeRow> prediction_resizes() { return kResizes; }

std::span<const ProtocolRow> protocols() { return table(); }

const ProtocolRow& find_protocol(std::string_view name, std::string_view dataset) {
  for (const ProtocolRow& row : table()) {
    if (name.empty() ? set_of(row, dataset) != nullptr : row.name == name) return row;
  }
  fail("protocol: expected ",
       list_text(
           table(), [](const ProtocolRow& row) { return row.name; }, " or "),
       ", got '", name, "'");
}

const ProtocolSet& find_set(const ProtocolRow& protocol, std::string_view dataset) {
  const ProtocolSet* const set = set_of(protocol, dataset);
  check(set != nullptr, "protocol ", protocol.name, ": expected a set on which it is defined (",
        list_text(protocol.sets, [](const ProtocolSet& row) { return row.dataset; }), "), got '", dataset, "'");
  return *set;
}

}  // namespace depthstill
