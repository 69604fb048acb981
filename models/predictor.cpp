#include "models/predictor.h"

#include <algorithm>
#include <cmath>

#include "engine/data/batch_tensors.h"
#include "engine/data/cubic.h"
#include "engine/data/pixels.h"
#include "models/captured_forward.h"

namespace depthstill {

Predictor::Predictor(const DepthModel& model, const PredictOptions& options)
    : model_(model),
      options_(options),
      forward_(std::make_unique<CapturedForward>(
          model, CapturedForward::Options{.device = options.device,
                                          .graph = options.graph && options.device == Device::kCuda,
                                          .note = options.note})) {}

Predictor::~Predictor() = default;

DepthMap Predictor::run_network(const Tensor& image, ImageSize kept, const std::string& name) const {
  const ModelOptions& model = model_.options();
  const Tensor depth = (*forward_)(image);
  const std::vector<float> values = to_vector<float>(to_device(depth, Device::kCpu));
  const MapKind kind = model.head == Head::kRelative ? kRelativeInverseDepth : kMetricDepth;
  DepthMap map{kept.width, kept.height, {}, kind};
  map.values.reserve(static_cast<size_t>(kept.width) * static_cast<size_t>(kept.height));
  for (int y = 0; y < kept.height; ++y) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(y) * image.size(2);
    map.values.insert(map.values.end(), row, row + kept.width);
  }
  const auto bad = std::find_if(map.values.begin(), map.values.end(), [](float v) { return !std::isfinite(v); });
  if (bad != map.values.end()) {
    const auto at = bad - map.values.begin();
    fail(name, ": expected a finite map of ", model_.name(), ", found ", std::isnan(*bad) ? "NaN" : "infinity",
         " at row ", at / kept.width, ", column ", at % kept.width, " of its ", kept, " pixels");
  }
  if (model.head != Head::kRelative) {
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
    return {true, fitted_size(image, rule)};
  }
  if (side > 0) return {false, with_shorter_side(image, side)};
  const auto scaled = [](int pixels, double by) { return std::max(1, static_cast<int>(std::lround(pixels * by))); };
  return {false, use.input_size.value_or(
                     ImageSize{scaled(image.width, use.scale_width), scaled(image.height, use.scale_height)})};
}

DepthMap Predictor::run_once(const Image8& image, const Input& input, const std::string& name) const {
  const ImageSize size = input.size;
  if (input.by_rule) {
    return run_network(to_tensor(resize_cubic(image, size), size, options_.dtype, options_.device), size, name);
  }
  const Image8 padded =
      pad_to_multiple(size == image.size() ? image : resize(image, size), static_cast<int>(model_.size_multiple()));
  return run_network(to_tensor(padded, options_.dtype, options_.device), size, name);
}

DepthMap Predictor::operator()(const Image8& image, const std::string& name) const {
  const Input input = input_for(image.size());
  check(std::max(input.size.width, input.size.height) <= kMaxNetworkSide, name, ": expected sides of at most ",
        kMaxNetworkSide, " pixels for the network, found ", input.size, " (width x height) for an image of ",
        image.size(), "; --side brings it to another size");
  try {
    return run(image, input, name);
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
  if (!input.by_rule) return resize_bilinear(depth, image.size());
  if (depth.size() == image.size()) return depth;
  if (!model_.input_rule().cubic_output) return resize_bilinear(depth, image.size(), true);
  DepthMap resized = resize_cubic(depth, image.size());
  for (float& value : resized.values) value = std::max(value, 0.0f);  // overshoot
  return resized;
}

}  // namespace depthstill
