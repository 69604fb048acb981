#include "models/predictor.h"

#include <algorithm>
#include <cmath>

#include "engine/data/batch_tensors.h"
#include "engine/data/cubic.h"
#include "engine/data/pixels.h"
#include "models/captured_forward.h"
#include "models/fitted_image.h"
#include "models/sky_rule.h"

namespace depthstill {

namespace {

// Depth of a canonical head, of an image whose focal length is known in its own pixels: the network has seen one of
// f = (fx + fy) / 2 pixels in an input of this size.
void to_metres(DepthMap& map, double focal, ImageSize input) {
  const double f =
      focal * (static_cast<double>(input.width) / map.width + static_cast<double>(input.height) / map.height) / 2;
  for (float& value : map.values) value = static_cast<float>(value * f / kCanonicalFocal);
  map.kind = kMetricDepth;
}

}  // namespace

Predictor::Predictor(const DepthModel& model, const PredictOptions& options)
    : model_(model),
      options_(options),
      forward_(std::make_unique<CapturedForward>(
          model, CapturedForward::Options{.device = options.device,
                                          .graph = options.graph && options.device == Device::kCuda,
                                          .note = options.note})) {}

Predictor::~Predictor() = default;

MapKind Predictor::kind(double focal) const {
  const Head head = model_.options().head;
  if (options_.labels) return label_kind(head);
  return head == Head::kCanonicalDepth && focal > 0 ? kMetricDepth : kind_of(head);
}

void Predictor::check_focal(double focal, const std::string& where) const {
  check(focal > 0 || !needs_focal(), where,
        ": expected a focal length in pixels behind image and depth, without which ", model_.name(),
        " has no metres; found none");
}

DepthMap Predictor::kept_part(const Tensor& from, ImageSize kept, const std::string& name) const {
  const std::vector<float> values = to_vector<float>(to_device(from, Device::kCpu));
  DepthMap map{kept.width, kept.height, {}};
  map.values.reserve(static_cast<size_t>(kept.width) * static_cast<size_t>(kept.height));
  for (int y = 0; y < kept.height; ++y) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(y) * from.size(2);
    map.values.insert(map.values.end(), row, row + kept.width);
  }
  const auto bad = std::find_if(map.values.begin(), map.values.end(), [](float v) { return !std::isfinite(v); });
  if (bad != map.values.end()) {
    const auto at = bad - map.values.begin();
    fail(name, ": expected a finite map of ", model_.name(), ", found ", std::isnan(*bad) ? "NaN" : "infinity",
         " at row ", at / kept.width, ", column ", at % kept.width, " of its ", kept, " pixels");
  }
  return map;
}

DepthMap Predictor::run_network(const Tensor& image, ImageSize kept, const std::string& name) const {
  const Prediction prediction = (*forward_)(image);
  DepthMap map = kept_part(prediction.map, kept, name);
  map.kind = kind(0);
  if (prediction.sky.defined()) {
    const DepthMap sky = kept_part(prediction.sky, kept, name);
    options_.labels ? to_sky_label(map.values, sky.values) : fill_sky(map.values, sky.values);
  }
  const ModelOptions& model = model_.options();
  if (kind_of(model.head) == kMetricDepth) {
    for (float& metres : map.values) metres = std::clamp(metres, model.d_min, model.d_max);
  }
  return map;
}

Predictor::Input Predictor::input_for(ImageSize image) const {
  InputRule rule = model_.input_rule();
  const TrainedUse use = model_.trained_use().value_or(TrainedUse{});
  const int side = options_.side > 0 ? options_.side : use.side;
  if (rule.fit != InputRule::Fit::kPad && !use.resizes()) {
    if (side > 0) rule.size = side;
    return {rule, fitted_size(image, rule)};
  }
  if (side > 0) return {std::nullopt, with_shorter_side(image, side)};
  const auto scaled = [](int pixels, double by) { return std::max(1, static_cast<int>(std::lround(pixels * by))); };
  return {std::nullopt, use.input_size.value_or(
                            ImageSize{scaled(image.width, use.scale_width), scaled(image.height, use.scale_height)})};
}

DepthMap Predictor::run_once(const Image8& image, const Input& input, const std::string& name) const {
  const ImageSize size = input.size;
  if (input.rule && input.rule->way == InputRule::Way::kTwoSteps) {
    return run_network(to_tensor(fitted_image(image, *input.rule), options_.dtype, options_.device), size, name);
  }
  if (input.rule) {
    return run_network(to_tensor(resize_cubic(image, size), size, options_.dtype, options_.device), size, name);
  }
  const Image8 padded =
      pad_to_multiple(size == image.size() ? image : resize(image, size), static_cast<int>(model_.size_multiple()));
  return run_network(to_tensor(padded, options_.dtype, options_.device), size, name);
}

DepthMap Predictor::operator()(const Image8& image, const std::string& name, double focal) const {
  const Input input = input_for(image.size());
  check(std::max(input.size.width, input.size.height) <= kMaxNetworkSide, name, ": expected sides of at most ",
        kMaxNetworkSide, " pixels for the network, found ", input.size, " (width x height) for an image of ",
        image.size(), "; --side brings it to another size");
  try {
    DepthMap map = run(image, input, name);
    if (needs_focal() && focal > 0) to_metres(map, focal, input.size);
    return map;
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(concat_text(name, ": ", image.size(), ", which the network sees as ", input.size, ": ",
                                  error.what(), "; a smaller input takes less (--side of predict and teach)"));
  }
}

DepthMap Predictor::run(const Image8& image, const Input& input, const std::string& name) const {
  DepthMap depth = run_once(image, input, name);
  if (options_.flip) {
    const DepthMap mirrored = run_once(mirror(image), input, name);
    const auto width = static_cast<size_t>(depth.width);
    for (size_t y = 0; y < static_cast<size_t>(depth.height); ++y) {
      for (size_t x = 0; x < width; ++x) {
        float& metres = depth.values[y * width + x];
        metres = 0.5f * (metres + mirrored.values[y * width + width - 1 - x]);
      }
    }
  }
  if (!input.rule) return resize_bilinear(depth, image.size());
  if (depth.size() == image.size()) return depth;
  const InputRule::Output output = input.rule->output;
  if (output != InputRule::Output::kCubic) {
    return resize_bilinear(depth, image.size(), output == InputRule::Output::kCorners);
  }
  DepthMap resized = resize_cubic(depth, image.size());
  for (float& value : resized.values) value = std::max(value, 0.0f);  // overshoot
  return resized;
}

}  // namespace depthstill
