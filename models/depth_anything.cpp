#include "models/depth_anything.h"

#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr const char* kEncoder = "pretrained";
constexpr const char* kHead = "depth_head";

DepthAnythingConfig config_of(std::string_view name) {
  if (name == "dpt_s") return {{384, 12, 6, {2, 5, 8, 11}}, {384, 64, {48, 96, 192, 384}}};
  if (name == "dpt_b") return {{768, 12, 12, {2, 5, 8, 11}}, {768, 128, {96, 192, 384, 768}}};
  if (name == "dpt_l") return {{1024, 24, 16, {4, 11, 17, 23}}, {1024, 256, {256, 512, 1024, 1024}}};
  if (name == "dpt_g") return {{1536, 40, 24, {9, 19, 29, 39}, true}, {1536, 384, {1536, 1536, 1536, 1536}}};
  fail("Depth Anything: expected dpt_s, dpt_b, dpt_l or dpt_g, got \"", name, '"');
}

}  // namespace

DepthAnything::DepthAnything(std::string_view name, const ModelOptions& options)
    : DepthAnything(name, config_of(name), options) {}

DepthAnything::DepthAnything(std::string_view name, const DepthAnythingConfig& config, const ModelOptions& options)
    : DepthModel(std::string(name), options, {InputRule::Fit::kLowerBound, 518, DinoV2::kPatch}),
      encoder_(config.encoder),
      head_(config.head) {
  check(options.head != Head::kDpm, name, ": expected the head relative or regression, got dpm");
  add_child(kEncoder, encoder_);
  add_child(kHead, head_);
}

Tensor DepthAnything::run(const Tensor& image, int64_t first_needed_row) const {
  const int64_t height = image.size(1), width = image.size(2), patch = DinoV2::kPatch;
  std::vector<Tensor> taps = encoder_.forward(image);
  for (Tensor& tap : taps) tap = reshape(tap, {image.size(0), height / patch, width / patch, tap.size(2)});
  const Tensor y = head_.forward(taps, height, width);
  const ProfileRange range("fwd", head_.path());
  // Attention is global, so nothing above the needed rows can be left out; only the output is cut.
  return first_needed_row == 0 ? y : crop_rows(y, first_needed_row, height - first_needed_row);
}

void DepthAnything::initialize(uint64_t seed) {
  encoder_.initialize(seed, std::string(kEncoder) + ".");
  head_.initialize(seed, std::string(kHead) + ".");
}

double DepthAnything::gmac(int64_t height, int64_t width) const {
  const int64_t patch = DinoV2::kPatch;
  return static_cast<double>(encoder_.macs(height, width) + head_.macs(height / patch, width / patch, height, width)) *
         1e-9;
}

std::vector<DepthModel::DeadParameter> DepthAnything::dead_parameters() const {
  std::vector<DeadParameter> dead{{std::string(kEncoder) + ".mask_token", {1, encoder_.config().dim}}};
  const int64_t features = head_.config().features;
  for (const char* conv : {"conv1", "conv2"}) {
    const std::string name = concat_text(kHead, ".scratch.refinenet4.resConfUnit1.", conv);
    dead.push_back({name + ".weight", {features, features, 3, 3}});
    dead.push_back({name + ".bias", {features}});
  }
  return dead;
}

}  // namespace depthstill
