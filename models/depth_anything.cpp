#include "models/depth_anything.h"

#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr const char* kEncoder = "pretrained";
constexpr const char* kHead = "depth_head";

}  // namespace

InputRule DepthAnything::input_rule_of(const DepthAnythingConfig& config) {
  if (!config.looks_for_sky()) return {InputRule::Fit::kLowerBound, 518, DinoV2::kPatch};
  return {InputRule::Fit::kUpperBound, 504, DinoV2::kPatch, InputRule::Way::kTwoSteps,
          InputRule::Output::kPixelCentres};
}

DepthAnything::DepthAnything(std::string_view name, const DepthAnythingConfig& config, const ModelOptions& options)
    : DepthModel(std::string(name), options, input_rule_of(config)), encoder_(config.encoder), head_(config.head) {
  const bool fits = config.looks_for_sky() ? is_exponential(options.head)
                                           : options.head == Head::kRelative || options.head == Head::kRegression;
  check(fits, name, ": expected the head ",
        config.looks_for_sky() ? "relative_depth or canonical_depth" : "relative or regression", ", got ",
        name_of(options.head));
  add_child(kEncoder, encoder_);
  add_child(kHead, head_);
}

Tensor DepthAnything::run(const Tensor& image, int64_t first_needed_row, Activation last, const Extras& extras) const {
  const int64_t height = image.size(1), width = image.size(2), patch = DinoV2::kPatch;
  std::vector<Tensor> taps = encoder_.forward(image);
  if (extras.features != nullptr) *extras.features = taps.back();
  for (Tensor& tap : taps) tap = reshape(tap, {image.size(0), height / patch, width / patch, tap.size(2)});
  const Tensor y = head_.forward(taps, height, width, last, extras.sky);
  const ProfileRange range("fwd", head_.path());
  // Attention is global, so nothing above the needed rows can be left out; only the output is cut.
  const auto cut = [&](const Tensor& map) {
    return first_needed_row == 0 ? map : crop_rows(map, first_needed_row, height - first_needed_row);
  };
  if (extras.sky != nullptr && extras.sky->defined()) {
    const bool sigmoid = head_.config().sky == SkyBranch::kSigmoid;
    *extras.sky = activation(cut(*extras.sky), sigmoid ? Activation::kSigmoid : Activation::kRelu);
  }
  return cut(y);
}

void DepthAnything::initialize(uint64_t seed) {
  encoder_.initialize(seed, std::string(kEncoder) + ".");
  head_.initialize(seed, std::string(kHead) + ".");
  start_above_zero(head_.output_conv());
}

double DepthAnything::gmac(int64_t height, int64_t width) const {
  const int64_t patch = DinoV2::kPatch;
  return static_cast<double>(encoder_.macs(height, width) + head_.macs(height / patch, width / patch, height, width)) *
         1e-9;
}

std::vector<DepthModel::DeadParameter> DepthAnything::dead_parameters() const {
  std::vector<DeadParameter> dead{{std::string(kEncoder) + ".mask_token", {1, encoder_.config().dim}}};
  if (head_.config().sky != SkyBranch::kNone) return dead;
  const int64_t features = head_.config().features;
  for (const char* conv : {"conv1", "conv2"}) {
    const std::string name = concat_text(kHead, ".scratch.refinenet4.resConfUnit1.", conv);
    dead.push_back({name + ".weight", {features, features, 3, 3}});
    dead.push_back({name + ".bias", {features}});
  }
  return dead;
}

}  // namespace depthstill
