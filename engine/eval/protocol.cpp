#include "engine/eval/protocol.h"

#include <algorithm>
#include <cmath>

#include "kernels/error.h"

namespace depthstill {
namespace {

constexpr int kFrameHeight = 352, kFrameWidth = 1216;
constexpr int kNyuHeight = 480, kNyuWidth = 640;
constexpr int kTeacherFirstRow = 110;

// Fractions 0.408, 0.992 / 0.332, 0.914 of 352 rows and 0.036, 0.964 of 1216 columns, as evaluated by the reference.
constexpr Window kKittiGarg{143, 349, 43, 1172};
constexpr Window kKittiEigen{117, 321, 43, 1172};
constexpr Window kNyuEigen{45, 471, 41, 601};

float median(std::vector<float>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2) return *middle;
  return 0.5f * (*middle + *std::max_element(values.begin(), middle));
}

}  // namespace

Protocol make_protocol(const std::string& dataset) {
  Protocol protocol;
  protocol.dataset = dataset;
  if (dataset == "kitti") {
    protocol.frame = EvalFrame::kKittiBenchmark;
    protocol.crop = EvalCrop::kGarg;
  } else if (dataset == "nyu") {
    protocol.crop = EvalCrop::kEigen;
    protocol.max_depth = 10;
  } else {
    check(dataset == "plain", "protocol: expected kitti, nyu or plain, got '", dataset, "'");
  }
  return protocol;
}

Protocol against_teacher(Protocol protocol) {
  protocol.target = Target::kTeacher;
  protocol.crop = EvalCrop::kNone;
  protocol.first_row = protocol.dataset == "kitti" ? kTeacherFirstRow : 0;
  return protocol;
}

EvalCrop parse_eval_crop(const std::string& text) {
  if (text == "none") return EvalCrop::kNone;
  if (text == "garg") return EvalCrop::kGarg;
  check(text == "eigen", "crop: expected none, garg or eigen, got '", text, "'");
  return EvalCrop::kEigen;
}

Window frame_window(EvalFrame frame, int height, int width) {
  if (frame == EvalFrame::kImage) return {0, height, 0, width};
  check(height >= kFrameHeight && width >= kFrameWidth, "protocol: the KITTI frame needs at least ", kFrameHeight, "x",
        kFrameWidth, " pixels, the image has ", height, "x", width);
  const int top = height - kFrameHeight, left = (width - kFrameWidth) / 2;
  return {top, height, left, left + kFrameWidth};
}

void check_frame(EvalFrame frame, const Sample& sample) {
  try {
    frame_window(frame, sample.stored_size.height, sample.stored_size.width);
  } catch (const Error& error) {
    fail(sample.where, ": ", error.what());
  }
}

Window eval_window(const Protocol& protocol, int height, int width) {
  Window window{0, height, 0, width};
  if (protocol.crop != EvalCrop::kNone) {
    const bool nyu = protocol.dataset == "nyu", garg = protocol.crop == EvalCrop::kGarg;
    check(protocol.dataset != "plain", "protocol: crops are defined for kitti and nyu");
    check(!(nyu && garg), "protocol: the Garg crop is defined for kitti");
    const int expected_height = nyu ? kNyuHeight : kFrameHeight, expected_width = nyu ? kNyuWidth : kFrameWidth;
    check(height == expected_height && width == expected_width, "protocol: the ", garg ? "Garg" : "Eigen", " crop of ",
          protocol.dataset, " is defined on ", expected_height, "x", expected_width, ", got ", height, "x", width);
    window = nyu ? kNyuEigen : garg ? kKittiGarg : kKittiEigen;
  }
  window.top = std::min(std::max(window.top, protocol.first_row), window.bottom);
  return window;
}

std::vector<uint8_t> valid_mask(const Protocol& protocol, int height, int width, std::span<const float> truth) {
  const Window window = eval_window(protocol, height, width);
  std::vector<uint8_t> valid(truth.size(), 0);
  check(static_cast<size_t>(height) * static_cast<size_t>(width) == truth.size(), "protocol: expected ", height, "x",
        width, " truths, got ", truth.size());
  for (int y = window.top; y < window.bottom; ++y) {
    for (int x = window.left; x < window.right; ++x) {
      const size_t i = static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x);
      const double g = truth[i];
      valid[i] = protocol.target == Target::kTeacher ? g > 0 : g > protocol.min_depth && g < protocol.max_depth;
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
  float factor = 1;
  if (protocol.median_scaling) {
    std::vector<float> p, g;
    for (size_t i = 0; i < valid.size(); ++i) {
      if (valid[i]) {
        p.push_back(prediction[i]);
        g.push_back(truth[i]);
      }
    }
    if (!p.empty()) {
      const float middle = median(p);
      check(middle > 0, name, ": median scaling needs a positive median, got ", middle);
      factor = median(g) / middle;
    }
  }
  for (float& value : prediction) value = std::clamp(value * factor, low, high);
}

std::string describe(const Protocol& protocol) {
  const bool kitti = protocol.frame == EvalFrame::kKittiBenchmark, teacher = protocol.target == Target::kTeacher;
  std::string text =
      concat_text("protocol ", protocol.dataset, teacher ? ", similarity to the teacher: " : ": ",
                  kitti ? "352x1216 bottom-centre frame (KB crop), no resize; " : "whole image at its own size; ",
                  teacher ? concat_text("every pixel with a teacher depth")
                          : concat_text("truth valid where ", protocol.min_depth, " < d < ", protocol.max_depth, " m"));
  if (protocol.crop != EvalCrop::kNone) {
    const Window w =
        kitti ? eval_window(protocol, kFrameHeight, kFrameWidth) : eval_window(protocol, kNyuHeight, kNyuWidth);
    text += concat_text("; ", protocol.crop == EvalCrop::kGarg ? "Garg" : "Eigen", " crop rows ", w.top, ":", w.bottom,
                        ", columns ", w.left, ":", w.right);
  } else if (protocol.first_row > 0) {
    text += concat_text("; rows from ", protocol.first_row, " on, all columns");
  } else {
    text += "; no crop";
  }
  text += concat_text("; prediction clamped to [", protocol.min_depth, ", ", protocol.max_depth, "] m; ",
                      protocol.median_scaling ? "median scaling per image" : "no median scaling",
                      "; mean of per-image values");
  return text;
}

}  // namespace depthstill
