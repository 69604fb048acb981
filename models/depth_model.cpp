#include "models/depth_model.h"

#include <utility>

#include "engine/init.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

struct HeadRow {
  Head head;
  const char* name;
  MapKind kind;
};
constexpr HeadRow kHeads[] = {
    {Head::kDpm, "dpm", kMetricDepth},
    {Head::kRegression, "regression", kMetricDepth},
    {Head::kRelative, "relative", kRelativeInverseDepth},
    {Head::kRelativeDepth, "relative_depth", {Quantity::kDepth, Ambiguity::kScaleAndShift}},
    {Head::kCanonicalDepth, "canonical_depth", {Quantity::kDepth, Ambiguity::kScale}},
};

}  // namespace

const char* name_of(Head head) { return kHeads[static_cast<size_t>(head)].name; }
MapKind kind_of(Head head) { return kHeads[static_cast<size_t>(head)].kind; }

Head parse_head(std::string_view text) {
  for (const HeadRow& row : kHeads) {
    if (text == row.name) return row.head;
  }
  fail("head: expected ",
       list_text(
           kHeads, [](const HeadRow& row) { return row.name; }, " or "),
       ", got '", text, "'");
}

DepthModel::DepthModel(std::string name, const ModelOptions& options, const InputRule& input_rule)
    : name_(std::move(name)), options_(options), input_rule_(input_rule) {
  check(options.d_min > 0.0f && options.d_max > options.d_min && options.bins >= 2, name_,
        ": expected 0 < d_min < d_max and at least 2 bins, got [", options.d_min, ", ", options.d_max, "] and ",
        options.bins);
}

void DepthModel::start_above_zero(const Conv2d& output) const {
  if (options_.head != Head::kRelative) return;
  make_positive(output.weight);
  make_positive(output.bias);
}

void DepthModel::check_image(const Tensor& image) const {
  const Shape& shape = image.shape();
  const int64_t multiple = size_multiple();
  check(shape.rank() == 4 && shape[3] == 3, name_, ": expected an image (N, H, W, 3), got ", shape);
  check(shape[1] > 0 && shape[2] > 0 && shape[1] % multiple == 0 && shape[2] % multiple == 0, name_,
        ": expected height and width to be multiples of ", multiple, ", got ", shape[1], " x ", shape[2]);
}

Tensor DepthModel::forward_raw(const Tensor& image, int64_t first_needed_row) const {
  check_image(image);
  const Tensor y = run(image, first_needed_row, Activation::kNone, {});
  return options_.head == Head::kDpm ? dpm_logits({y, dpm_head(), bins()}) : y;
}

Prediction DepthModel::forward(const Tensor& image, int64_t first_needed_row) const {
  return predict(image, first_needed_row, nullptr);
}

Prediction DepthModel::forward_with_features(const Tensor& image) const {
  Tensor features;
  Prediction prediction = predict(image, 0, &features);
  check(features.defined(), name_, ": expected a network with a DINOv2 encoder, which has features");
  prediction.features = features;
  return prediction;
}

Prediction DepthModel::predict(const Tensor& image, int64_t first_needed_row, Tensor* features) const {
  check_image(image);
  const bool relative = options_.head == Head::kRelative;
  Tensor sky;
  Tensor y = run(image, first_needed_row, relative ? Activation::kRelu : Activation::kNone, {features, &sky});
  if (options_.head == Head::kDpm) return DpmMap(y, dpm_head(), bins());
  const ProfileRange range("fwd", "output");
  // The output is made in fp32: sigmoid in bf16 would round depth to steps of a third of a metre.
  if (y.dtype() != DType::kFloat) y = cast(y, DType::kFloat);
  if (options_.head == Head::kRegression) y = scale(activation(y, Activation::kSigmoid), options_.d_max);
  if (is_exponential(options_.head)) y = exp(y);
  const Shape map{y.size(0), y.size(1), y.size(2)};
  Prediction prediction = reshape(y, map);
  if (sky.defined()) prediction.sky = reshape(sky, map);
  return prediction;
}

int64_t DepthModel::reference_parameter_count() const {
  int64_t count = parameter_count();
  for (const DeadParameter& dead : dead_parameters()) count += dead.file_shape.numel();
  return count;
}

std::vector<std::string> DepthModel::dead_parameter_names() const {
  std::vector<std::string> names;
  for (const DeadParameter& dead : dead_parameters()) names.push_back(dead.name);
  return names;
}

}  // namespace depthstill
