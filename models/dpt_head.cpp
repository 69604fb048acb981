#include "models/dpt_head.h"

#include <string>

#include "engine/init.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr size_t kLevels = 4;
constexpr int64_t kOutputWidth = 32;  // channels of the last 3x3 convolution

Conv2dConfig conv3x3(int64_t in, int64_t out, Activation activation = Activation::kNone) {
  return {.in = in, .out = out, .kernel = 3, .activation = activation};
}

}  // namespace

// x + conv2(relu(conv1(relu(x))))
class DptHead::ResidualUnit final : public Module {
 public:
  explicit ResidualUnit(int64_t features)
      : conv1_(conv3x3(features, features, Activation::kRelu)), conv2_(conv3x3(features, features)) {
    add_child("conv1", conv1_);
    add_child("conv2", conv2_);
  }
  Tensor forward(const Tensor& x) const {
    const ProfileRange range("fwd", path());
    return add(x, conv2_.forward(conv1_.forward(activation(x, Activation::kRelu))));
  }

 private:
  Conv2d conv1_, conv2_;
};

class DptHead::Fusion final : public Module {
 public:
  Fusion(int64_t features, bool with_skip)
      : out_conv_({.in = features, .out = features, .kernel = 1}), unit2_(features) {
    add_child("out_conv", out_conv_);
    if (with_skip) {
      unit1_ = std::make_unique<ResidualUnit>(features);
      add_child("resConfUnit1", *unit1_);
    }
    add_child("resConfUnit2", unit2_);
  }

  // The published order is resize, then the 1x1 convolution. They commute, because interpolation weights sum to one,
  // and before the resize the convolution has a quarter of the pixels.
  Tensor forward(const Tensor& x, const Tensor& skip, int64_t height, int64_t width) const {
    const ProfileRange range("fwd", path());
    const Tensor fused = skip.defined() ? add(x, unit1_->forward(skip)) : x;
    return upsample_bilinear(out_conv_.forward(unit2_.forward(fused)), height, width, true);
  }

  int64_t macs_per_pixel() const {
    int64_t macs = 0;
    for (const StateEntry& entry : parameters()) {
      if (entry.layout == Layout::kConv) macs += entry.tensor->numel();
    }
    return macs;
  }

 private:
  Conv2d out_conv_;
  std::unique_ptr<ResidualUnit> unit1_;  // none at the deepest level, which has no map to add to
  ResidualUnit unit2_;
};

DptHead::DptHead(const DptConfig& config)
    : config_(config),
      resize4_(config.out_channels[0], config.out_channels[0], 4),
      resize2_(config.out_channels[1], config.out_channels[1], 2),
      resize_half_({.in = config.out_channels[3], .out = config.out_channels[3], .kernel = 3, .stride = 2}),
      output_conv1_(conv3x3(config.features, config.features / 2)),
      output_conv2_(conv3x3(config.features / 2, kOutputWidth, Activation::kRelu)),
      output_({.in = kOutputWidth, .out = 1, .kernel = 1}) {
  for (size_t i = 0; i < kLevels; ++i) {
    projects_.push_back(
        std::make_unique<Conv2d>(Conv2dConfig{.in = config.dim, .out = config.out_channels[i], .kernel = 1}));
    add_child(concat_text("projects.", i), *projects_.back());
  }
  add_child("resize_layers.0", resize4_);
  add_child("resize_layers.1", resize2_);
  add_child("resize_layers.3", resize_half_);
  for (size_t i = 0; i < kLevels; ++i) {
    layer_rn_.push_back(std::make_unique<Conv2d>(
        Conv2dConfig{.in = config.out_channels[i], .out = config.features, .kernel = 3, .bias = false}));
    add_child(concat_text("scratch.layer", i + 1, "_rn"), *layer_rn_.back());
  }
  for (size_t i = 0; i < kLevels; ++i) {
    fusions_.push_back(std::make_unique<Fusion>(config.features, i + 1 < kLevels));
    add_child(concat_text("scratch.refinenet", i + 1), *fusions_.back());
  }
  add_child("scratch.output_conv1", output_conv1_);
  add_child("scratch.output_conv2.0", output_conv2_);
  add_child("scratch.output_conv2.2", output_);
  if (config.sky == SkyBranch::kNone) return;
  sky_conv_ = std::make_unique<Conv2d>(output_conv2_.config());
  sky_output_ = std::make_unique<Conv2d>(output_.config());
  add_child("scratch.sky_output_conv2.0", *sky_conv_);
  add_child("scratch.sky_output_conv2.2", *sky_output_);
}

DptHead::~DptHead() = default;

Tensor DptHead::reassemble(size_t level, const Tensor& tokens) const {
  Tensor x = projects_[level]->forward(tokens);
  if (level == 0) x = resize4_.forward(x);
  if (level == 1) x = resize2_.forward(x);
  if (level == 3) x = resize_half_.forward(x);
  return layer_rn_[level]->forward(x);
}

Tensor DptHead::forward(const std::vector<Tensor>& taps, int64_t out_height, int64_t out_width, Activation last,
                        Tensor* sky) const {
  const ProfileRange range("fwd", path());
  std::vector<Tensor> maps;
  for (size_t i = 0; i < kLevels; ++i) maps.push_back(reassemble(i, taps[i]));
  Tensor x = fusions_[3]->forward(maps[3], {}, maps[2].size(1), maps[2].size(2));
  x = fusions_[2]->forward(x, maps[2], maps[1].size(1), maps[1].size(2));
  x = fusions_[1]->forward(x, maps[1], maps[0].size(1), maps[0].size(2));
  x = fusions_[0]->forward(x, maps[0], 2 * maps[0].size(1), 2 * maps[0].size(2));
  maps.clear();  // without a tape, their memory serves the largest map
  x = output_conv1_.forward(x);
  x = upsample_bilinear(x, out_height, out_width, true);
  if (sky != nullptr && sky_conv_) *sky = sky_output_->forward_head(sky_conv_->forward(x), Activation::kNone);
  return output_.forward_head(output_conv2_.forward(x), last);
}

// PyTorch's defaults: every convolution uniform in +-1/sqrt(fan-in).
void DptHead::initialize(uint64_t seed, const std::string& prefix) {
  int64_t fan_in = 1;  // that of the weight, which precedes its bias
  for (const StateEntry& entry : parameters()) {
    if (entry.layout != Layout::kPlain) {
      const Shape file = to_file_shape(entry.tensor->shape(), entry.layout);
      fan_in = file[1] * file[2] * file[3];
    }
    uniform_fan_in(*entry.tensor, fan_in, seed, prefix + entry.name);
  }
}

int64_t DptHead::macs(int64_t height, int64_t width, int64_t out_height, int64_t out_width) const {
  const int64_t half_height = resize_half_.output_size(height), half_width = resize_half_.output_size(width);
  const int64_t pixels[] = {16 * height * width, 4 * height * width, height * width, half_height * half_width};
  int64_t macs = 0;
  for (size_t i = 0; i < kLevels; ++i) {
    macs += height * width * projects_[i]->macs_per_pixel() +
            pixels[i] * (layer_rn_[i]->macs_per_pixel() + fusions_[i]->macs_per_pixel());
  }
  macs +=
      height * width * (resize4_.weight.numel() + resize2_.weight.numel()) + pixels[3] * resize_half_.macs_per_pixel();
  return macs + 4 * pixels[0] * output_conv1_.macs_per_pixel() +
         (sky_conv_ ? 2 : 1) * out_height * out_width * (output_conv2_.macs_per_pixel() + output_.macs_per_pixel());
}

}  // namespace depthstill
