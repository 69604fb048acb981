#include "engine/eval/protocol.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {

Protocol make_protocol(const std::string& dataset, const std::string& name) {
  const Benchmark& row = find_benchmark(dataset);
  Protocol protocol;
  protocol.dataset = row.name;
  protocol.rules = &find_protocol(name, dataset);
  const ProtocolSet& set = find_set(*protocol.rules, dataset);
  protocol.frame = set.frame;
  protocol.box = find_box(row, set.box);
  protocol.truth = set.truth;
  protocol.min_depth = set.min_depth;
  protocol.max_depth = set.max_depth;
  protocol.fit_side = set.fit_side;
  protocol.resize = protocol.rules->resize;
  protocol.nonfinite_to_limits = protocol.rules->nonfinite_to_limits;
  return protocol;
}

MetricRule metric_rule(const Protocol& protocol) {
  MetricRule rule = protocol.rules->metric_rule;
  rule.inverse = protocol.metric_space == Quantity::kInverseDepth;
  return rule;
}

Protocol against_teacher(Protocol protocol) {
  protocol.target = Target::kTeacher;
  protocol.box = nullptr;
  protocol.first_row = find_benchmark(protocol.dataset).teacher_first_row;
  return protocol;
}

Rect frame_rect(const Protocol& protocol, ImageSize image) {
  const CropRuleRow& rule = row_of(protocol.frame);
  check(image.width >= rule.least.width && image.height >= rule.least.height, "protocol: the ",
        find_benchmark(protocol.dataset).title, " frame needs at least ", rule.least.height, "x", rule.least.width,
        " pixels, the image has ", image.height, "x", image.width);
  return rule.rect(image);
}

void check_frame(const Protocol& protocol, const Sample& sample) {
  try {
    frame_rect(protocol, sample.stored_size);
  } catch (const Error& error) {
    fail(sample.where, ": ", error.what());
  }
}

Rect eval_rect(const Protocol& protocol, ImageSize frame) {
  Rect rect{0, 0, frame.width, frame.height};
  if (protocol.box != nullptr) {
    const ImageSize expected = find_benchmark(protocol.dataset).box_frame;
    const bool any = protocol.box->on_any_frame() && protocol.frame == CropRule::kNone;
    check(any || frame == expected, "protocol: the ", protocol.box->title, " crop of ", protocol.dataset,
          " is defined on ", expected.height, "x", expected.width, ", got ", frame.height, "x", frame.width);
    rect = rect_on(*protocol.box, frame);
  }
  const int top = std::min(std::max(rect.top, protocol.first_row), rect.bottom());
  rect.height = rect.bottom() - top;
  rect.top = top;
  return rect;
}

namespace {

// Linear interpolation between the two values around it, as numpy.quantile and torch.quantile have it.
double quantile(std::vector<float> values, double q) {
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = values.begin() + static_cast<std::ptrdiff_t>(at);
  std::nth_element(values.begin(), low, values.end());
  const double below = *low;
  if (low + 1 == values.end()) return below;
  const double above = *std::min_element(low + 1, values.end());
  return below + (at - std::floor(at)) * (above - below);
}

// Metres; nothing where it depends on all of truth.
std::optional<DepthRange> fixed_range(const Protocol& protocol) {
  const DepthRange within{static_cast<float>(protocol.min_depth), static_cast<float>(protocol.max_depth)};
  if (protocol.target == Target::kTeacher) return within;
  switch (protocol.truth) {
    case TruthRule::kInside:
      return exclusive_range(within.min, within.max);
    case TruthRule::kWithin:
      return within;
    case TruthRule::kMask:
      return DepthRange{};
    case TruthRule::kNoOutliers:
      break;
  }
  return std::nullopt;
}

DepthRange range_without_outliers(const Rect& rect, ImageSize frame, std::span<const float> truth) {
  std::vector<float> known;
  for (int y = rect.top; y < rect.bottom(); ++y) {
    const size_t row = static_cast<size_t>(y) * static_cast<size_t>(frame.width);
    for (int x = rect.left; x < rect.right(); ++x) {
      const float g = truth[row + static_cast<size_t>(x)];
      if (valid_depth(g)) known.push_back(g);
    }
  }
  if (known.empty()) return {};
  return {0, static_cast<float>(1000 * quantile(std::move(known), 0.01))};
}

void find_valid(const Rect& rect, ImageSize frame, const DepthRange& range, size_t first, std::span<const float> truth,
                std::span<uint8_t> valid) {
  const auto width = static_cast<size_t>(frame.width);
  std::fill(valid.begin(), valid.end(), uint8_t{0});
  for (size_t y = first / width; y * width < first + truth.size(); ++y) {
    if (y < static_cast<size_t>(rect.top) || y >= static_cast<size_t>(rect.bottom())) continue;
    const size_t begin = std::max(y * width + static_cast<size_t>(rect.left), first);
    const size_t end = std::min(y * width + static_cast<size_t>(rect.right()), first + truth.size());
    for (size_t i = begin; i < end; ++i) valid[i - first] = valid_depth(truth[i - first], range);
  }
}

}  // namespace

std::vector<uint8_t> valid_mask(const Protocol& protocol, ImageSize frame, std::span<const float> truth) {
  const Rect rect = eval_rect(protocol, frame);
  std::vector<uint8_t> valid(truth.size());
  check(static_cast<size_t>(frame.height) * static_cast<size_t>(frame.width) == truth.size(), "protocol: expected ",
        frame.height, "x", frame.width, " truths, got ", truth.size());
  const std::optional<DepthRange> fixed = fixed_range(protocol);
  find_valid(rect, frame, fixed ? *fixed : range_without_outliers(rect, frame, truth), 0, truth, valid);
  return valid;
}

ValidPixels::ValidPixels(const Protocol& protocol, ImageSize frame)
    : frame_(frame), rect_(eval_rect(protocol, frame)), range_(*fixed_range(protocol)) {}

void ValidPixels::find(size_t first, std::span<const float> truth, std::span<uint8_t> valid) const {
  find_valid(rect_, frame_, range_, first, truth, valid);
}

namespace {

std::string truth_text(const Protocol& protocol) {
  if (protocol.target == Target::kTeacher) {
    return concat_text("teacher valid where ", protocol.min_depth, " <= d <= ", protocol.max_depth, " m");
  }
  switch (protocol.truth) {
    case TruthRule::kInside:
      if (!std::isfinite(protocol.max_depth)) return concat_text("truth valid where d > ", protocol.min_depth, " m");
      return concat_text("truth valid where ", protocol.min_depth, " < d < ", protocol.max_depth, " m");
    case TruthRule::kWithin:
      return concat_text("truth valid where ", protocol.min_depth, " <= d <= ", protocol.max_depth, " m");
    case TruthRule::kMask:
      return "truth valid where the set's mask says so";
    case TruthRule::kNoOutliers:
      break;
  }
  return "truth valid where known and at most 1000 times its 1 % quantile";
}

std::string box_text(const Protocol& protocol, const Benchmark& row) {
  if (protocol.box == nullptr) {
    return protocol.first_row > 0 ? concat_text("rows from ", protocol.first_row, " on, all columns") : "no crop";
  }
  const EvalBox& box = *protocol.box;
  if (protocol.frame == CropRule::kNone && box.on_any_frame()) {
    return concat_text(box.title, " crop rows ", box.top, ":", box.bottom, ", columns ", box.left, ":", box.right,
                       " of the frame");
  }
  const Rect rect = eval_rect(protocol, row.box_frame);
  return concat_text(box.title, " crop rows ", rect.top, ":", rect.bottom(), ", columns ", rect.left, ":",
                     rect.right());
}

std::string limits_text(const Protocol& protocol) {
  if (!protocol.rules->clamps) return "prediction not clamped";
  if (!std::isfinite(protocol.max_depth)) {
    return concat_text("prediction clamped to at least ", protocol.min_depth, " m");
  }
  return concat_text("prediction clamped to [", protocol.min_depth, ", ", protocol.max_depth, "] m");
}

std::string alignment_text(const Protocol& protocol) {
  const ProtocolRow& rules = *protocol.rules;
  const AlignmentRow& row = row_of(protocol.alignment);
  const std::string columns =
      protocol.fit_side > 0 && row.ambiguity == Ambiguity::kScaleAndShift
          ? concat_text(", on every row and the columns of a longer side of ", protocol.fit_side, " pixels")
          : "";
  const std::string l1 =
      concat_text(" of least mean relative error per image", rules.l1_on_grid ? ", on a 64x64 grid" : "", columns);
  switch (protocol.alignment) {
    case Alignment::kNone:
      return "no alignment, no median scaling";
    case Alignment::kMedian:
      return concat_text(
          "median scaling per image: ", rules.median.lower ? "lower " : "", "median(truth) / ",
          rules.median.lower ? "lower " : "", "median(prediction)",
          rules.median.least > 0 ? concat_text(", those below ", rules.median.least, " raised to it") : std::string());
    case Alignment::kDepthLs:
      return concat_text("scale and shift per image by least squares in depth over valid pixels", columns);
    case Alignment::kScaleL1:
      return "scale" + l1;
    case Alignment::kDepthL1:
      return "scale and shift" + l1;
    case Alignment::kLogLs:
      return "exponent and factor per image by least squares in the logarithm of depth over valid pixels with a "
             "prediction > 0";
    case Alignment::kDisparityLs:
    case Alignment::kDisparityL1:
      break;
  }
  return concat_text("scale and shift per image by least ", row.l1 ? "mean relative error of" : "squares in",
                     " inverse depth over valid pixels", rules.fits_positive ? " with a prediction > 0" : "",
                     row.l1 && rules.l1_on_grid ? ", on a 64x64 grid" : "", columns, "; inverse depth raised to ",
                     rules.least_inverse > 0 ? concat_text("at least ", rules.least_inverse, " 1/m")
                                             : "that of the greatest valid truth");
}

std::string resize_text(const Protocol& protocol) {
  if (protocol.resize == PredictionResize::kNone) return "";
  return concat_text("; prediction of another size ", prediction_resizes()[static_cast<size_t>(protocol.resize)].text);
}

std::string metrics_text(const Protocol& protocol) {
  const ProtocolRow& rules = *protocol.rules;
  const MetricRule metric = metric_rule(protocol);
  std::string text = metric.inverse ? "; metrics of inverse depth, 1/m" : "";
  if (metric.abs_rel_offset > 0)
    text += concat_text("; abs_rel divides by truth + ", metric.abs_rel_offset, metric.inverse ? " 1/m" : " m");
  if (metric.silog_factor != 100) {
    text += concat_text("; silog = sqrt(mean e^2 - ", metric.silog_mean, " (mean e)^2)");
  }
  if (protocol.nonfinite_to_limits) text += "; predictions that are NaN or infinite take a limit";
  if (rules.least_pixels > 1) {
    text += concat_text("; images with fewer than ", rules.least_pixels, " valid pixels left out");
  }
  return text;
}

}  // namespace

std::string describe(const Protocol& protocol) {
  const Benchmark& row = find_benchmark(protocol.dataset);
  const bool kitti_crop = protocol.frame != CropRule::kNone;
  return concat_text("protocol ", protocol.rules->name, " on ", protocol.dataset,
                     protocol.target == Target::kTeacher ? ", similarity to the teacher: " : ": ",
                     kitti_crop ? row.frame_text : kWholeImage, "; ", truth_text(protocol), "; ",
                     box_text(protocol, row), resize_text(protocol), "; ", limits_text(protocol), "; ",
                     alignment_text(protocol), metrics_text(protocol), "; mean of per-image values");
}

}  // namespace depthstill
