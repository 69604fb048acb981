#include "engine/eval/protocol.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace depthstill {

Protocol make_protocol(const std::string& dataset) {
  const Benchmark& row = find_benchmark(dataset);
  Protocol protocol;
  protocol.dataset = row.name;
  protocol.frame = row.frame;
  protocol.box = find_box(row, "default");
  protocol.min_depth = row.min_depth;
  protocol.max_depth = row.max_depth;
  return protocol;
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
    check(frame == expected, "protocol: the ", protocol.box->title, " crop of ", protocol.dataset, " is defined on ",
          expected.height, "x", expected.width, ", got ", frame.height, "x", frame.width);
    rect = protocol.box->rect;
  }
  const int top = std::min(std::max(rect.top, protocol.first_row), rect.bottom());
  rect.height = rect.bottom() - top;
  rect.top = top;
  return rect;
}

DepthRange range_of(const Protocol& protocol) {
  if (protocol.target == Target::kTruth) return exclusive_range(protocol.min_depth, protocol.max_depth);
  return {static_cast<float>(protocol.min_depth), static_cast<float>(protocol.max_depth)};
}

std::vector<uint8_t> valid_mask(const Protocol& protocol, ImageSize frame, std::span<const float> truth) {
  const Rect rect = eval_rect(protocol, frame);
  const DepthRange range = range_of(protocol);
  std::vector<uint8_t> valid(truth.size(), 0);
  check(static_cast<size_t>(frame.height) * static_cast<size_t>(frame.width) == truth.size(), "protocol: expected ",
        frame.height, "x", frame.width, " truths, got ", truth.size());
  for (int y = rect.top; y < rect.bottom(); ++y) {
    for (int x = rect.left; x < rect.right(); ++x) {
      const size_t i = static_cast<size_t>(y) * static_cast<size_t>(frame.width) + static_cast<size_t>(x);
      valid[i] = valid_depth(truth[i], range);
    }
  }
  return valid;
}

void prepare_prediction(const Protocol& protocol, const std::string& name, std::span<float> prediction,
                        std::span<const float> truth, std::span<const uint8_t> valid) {
  for (size_t i = 0; i < prediction.size(); ++i) {
    check(std::isfinite(prediction[i]), name, ": pixel ", i, " is ", prediction[i],
          ", expected a finite depth in metres");
  }
  const float low = static_cast<float>(protocol.min_depth), high = static_cast<float>(protocol.max_depth);
  const Fit aligned = fit(protocol.alignment, name, prediction, truth, valid);
  const auto scale = static_cast<float>(aligned.scale), shift = static_cast<float>(aligned.shift);
  for (float& value : prediction) value = std::clamp(value * scale + shift, low, high);
}

std::string describe(const Protocol& protocol) {
  const Benchmark& row = find_benchmark(protocol.dataset);
  const bool teacher = protocol.target == Target::kTeacher;
  std::string text = concat_text(
      "protocol ", protocol.dataset, teacher ? ", similarity to the teacher: " : ": ", row.frame_text, "; ",
      teacher ? concat_text("teacher valid where ", protocol.min_depth, " <= d <= ", protocol.max_depth, " m")
              : concat_text("truth valid where ", protocol.min_depth, " < d < ", protocol.max_depth, " m"));
  if (protocol.box != nullptr) {
    const Rect rect = eval_rect(protocol, row.box_frame);
    text += concat_text("; ", protocol.box->title, " crop rows ", rect.top, ":", rect.bottom(), ", columns ", rect.left,
                        ":", rect.right());
  } else if (protocol.first_row > 0) {
    text += concat_text("; rows from ", protocol.first_row, " on, all columns");
  } else {
    text += "; no crop";
  }
  text += concat_text("; prediction clamped to [", protocol.min_depth, ", ", protocol.max_depth, "] m; ",
                      describe(protocol.alignment), "; mean of per-image values");
  return text;
}

}  // namespace depthstill
