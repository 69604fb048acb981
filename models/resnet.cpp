#include "models/resnet.h"

#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr int64_t kStemChannels = 64;

constexpr ResNetConfig kConfigs[] = {{18, {2, 2, 2, 2}, false}, {50, {3, 4, 6, 3}, true}};

std::unique_ptr<Convolution> conv(int64_t in, int64_t out, int kernel, int stride) {
  return std::make_unique<Conv2d>(Conv2dConfig{in, out, kernel, stride, 1, false});
}

// The reference's checkpoints and torchvision's name a ResNet's layers alike.
UnitNames names(const std::string& conv_name, const std::string& bn_name) {
  return {conv_name, bn_name, conv_name, bn_name};
}

}  // namespace

const ResNetConfig& resnet_config(int depth) {
  for (const ResNetConfig& config : kConfigs) {
    if (config.depth == depth) return config;
  }
  fail("resnet: expected a depth of ",
       list_text(
           kConfigs, [](const ResNetConfig& c) { return c.depth; }, " or "),
       ", got ", depth);
}

ResNet::ResNet(int depth) {
  const auto& [_, blocks, bottleneck] = resnet_config(depth);
  stem_ = add_unit(names("conv1", "bn1"), conv(3, kStemChannels, 7, 2), kStemChannels, Activation::kRelu);
  tap_channels_.push_back(kStemChannels);
  int64_t channels = kStemChannels;
  for (size_t s = 0; s < blocks.size(); ++s) {
    const int64_t width = kStemChannels << s, out = bottleneck ? 4 * width : width;
    for (int b = 0; b < blocks[s]; ++b) {
      const int stride = s > 0 && b == 0 ? 2 : 1;
      blocks_.push_back(add_block(concat_text("layer", s + 1, ".", b, "."), channels, width, out, stride, bottleneck));
      channels = out;
    }
    blocks_.back().last_of_stage = true;
    tap_channels_.push_back(channels);
  }
}

ResNet::Block ResNet::add_block(const std::string& name, int64_t in, int64_t width, int64_t out, int stride,
                                bool bottleneck) {
  Block block;
  int k = 0;
  const auto add = [&](std::unique_ptr<Convolution> layer, int64_t channels, Activation activation) {
    ++k;
    block.units.push_back(add_unit(names(concat_text(name, "conv", k), concat_text(name, "bn", k)), std::move(layer),
                                   channels, activation));
  };
  if (bottleneck) {
    add(conv(in, width, 1, 1), width, Activation::kRelu);
    add(conv(width, width, 3, stride), width, Activation::kRelu);
    add(conv(width, out, 1, 1), out, Activation::kNone);
  } else {
    add(conv(in, width, 3, stride), width, Activation::kRelu);
    add(conv(width, out, 3, 1), out, Activation::kNone);
  }
  if (stride != 1 || in != out)
    block.downsample =
        add_unit(names(name + "downsample.0", name + "downsample.1"), conv(in, out, 1, stride), out, Activation::kNone);
  return block;
}

std::vector<Tensor> ResNet::forward(const Tensor& image) const {
  std::vector<Tensor> taps;
  Tensor x = stem_->forward(image);
  taps.push_back(x);
  {
    const ProfileRange range("fwd", path(), "maxpool");
    x = max_pool2d(x, 3, 2, 1);
  }
  for (const Block& block : blocks_) {
    std::vector<ConvNorm> chain;
    for (const ConvBn* unit : block.units) chain.push_back(unit->link());
    const Tensor y = forward_chain(x, chain);
    const Tensor shortcut = block.downsample ? block.downsample->forward(x) : x;
    const ProfileRange range("fwd", block.units.back()->bn->path());
    x = activation(add(y, shortcut), Activation::kRelu);
    if (block.last_of_stage) taps.push_back(x);
  }
  return taps;
}

EncoderTrace ResNet::trace(MapSize image) const {
  EncoderTrace trace;
  MapSize size = trace_unit(*stem_, image, trace.macs);
  trace.taps.push_back(size);
  size = {(size.height + 1) / 2, (size.width + 1) / 2};  // max pooling
  for (const Block& block : blocks_) {
    if (block.downsample) trace_unit(*block.downsample, size, trace.macs);
    for (const ConvBn* unit : block.units) size = trace_unit(*unit, size, trace.macs);
    if (block.last_of_stage) trace.taps.push_back(size);
  }
  return trace;
}

}  // namespace depthstill
