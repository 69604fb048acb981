#include "models/mobilenet_v2.h"

#include <utility>

#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr int64_t kStemChannels = 32;

// expand, channels, blocks, stride, dilation, tap
constexpr MobileNetV2Stage kDilated[] = {
    {1, 16, 1, 1, 1, false}, {6, 24, 2, 2, 1, true},   {6, 32, 3, 2, 1, true},  {6, 64, 4, 1, 2, false},
    {6, 96, 3, 1, 2, true},  {6, 160, 3, 1, 4, false}, {6, 320, 1, 1, 4, true},
};
constexpr MobileNetV2Stage kClassifier[] = {
    {1, 16, 1, 1, 1, true}, {6, 24, 2, 2, 1, true},   {6, 32, 3, 2, 1, true},  {6, 64, 4, 2, 1, false},
    {6, 96, 3, 1, 1, true}, {6, 160, 3, 2, 1, false}, {6, 320, 1, 1, 1, true},
};

}  // namespace

std::span<const MobileNetV2Stage> mobilenet_v2_dilated() { return kDilated; }
std::span<const MobileNetV2Stage> mobilenet_v2_classifier() { return kClassifier; }

MobileNetV2::MobileNetV2(std::span<const MobileNetV2Stage> stages) {
  stem_ = add_unit({"conv1.conv", "conv1.bn", "features.0.0", "features.0.1"},
                   std::make_unique<Conv2d>(Conv2dConfig{3, kStemChannels, 3, 2, 1, false}), kStemChannels,
                   Activation::kRelu6);
  int64_t channels = kStemChannels;
  for (size_t s = 0; s < stages.size(); ++s) {
    for (int b = 0; b < stages[s].blocks; ++b) {
      blocks_.push_back(add_block(stages[s], static_cast<int>(s), b, channels));
      channels = stages[s].channels;
    }
    blocks_.back().tap = stages[s].tap;
    if (stages[s].tap) tap_channels_.push_back(channels);
  }
}

MobileNetV2::Block MobileNetV2::add_block(const MobileNetV2Stage& stage, int stage_index, int block_index,
                                          int64_t in_channels) {
  const int stride = block_index == 0 ? stage.stride : 1, dilation = block_index == 0 ? stage.dilation : 1;
  const int64_t hidden = in_channels * stage.expand;
  const std::string ours = concat_text("layer", stage_index + 1, ".", block_index, ".conv.");
  const std::string torchvision = concat_text("features.", blocks_.size() + 1, ".conv.");
  Block block{{}, stride == 1 && in_channels == stage.channels};
  int k = 0;
  // torchvision nests conv, norm and activation as k.0, k.1, but leaves the projection's two at the block's level.
  const auto add = [&](std::unique_ptr<Convolution> conv, int64_t channels, bool project) {
    UnitNames names{concat_text(ours, k, ".conv"), concat_text(ours, k, ".bn"),
                    concat_text(torchvision, k, project ? "" : ".0"),
                    project ? concat_text(torchvision, k + 1) : concat_text(torchvision, k, ".1")};
    block.units.push_back(
        add_unit(std::move(names), std::move(conv), channels, project ? Activation::kNone : Activation::kRelu6));
    ++k;
  };
  if (stage.expand != 1)
    add(std::make_unique<Conv2d>(Conv2dConfig{in_channels, hidden, 1, 1, 1, false}), hidden, false);
  add(std::make_unique<DepthwiseConv2d>(hidden, stride, dilation), hidden, false);
  add(std::make_unique<Conv2d>(Conv2dConfig{hidden, stage.channels, 1, 1, 1, false}), stage.channels, true);
  return block;
}

std::vector<Tensor> MobileNetV2::forward(const Tensor& image) const {
  std::vector<Tensor> taps;
  Tensor x = image;
  std::vector<ConvNorm> chain = {stem_->link()};  // it goes on to the first block, which has no residual
  for (const Block& block : blocks_) {
    for (const ConvBn* unit : block.units) chain.push_back(unit->link());
    const Tensor y = forward_chain(x, chain);
    chain.clear();
    const ProfileRange range("fwd", block.units.back()->bn->path());
    x = block.residual ? add(x, y) : y;
    if (block.tap) taps.push_back(x);
  }
  return taps;
}

EncoderTrace MobileNetV2::trace(MapSize image) const {
  EncoderTrace trace;
  MapSize size = trace_unit(*stem_, image, trace.macs);
  for (const Block& block : blocks_) {
    for (const ConvBn* unit : block.units) size = trace_unit(*unit, size, trace.macs);
    if (block.tap) trace.taps.push_back(size);
  }
  return trace;
}

}  // namespace depthstill
