// MobileNetV2 (Sandler et al. 2018), width 1.0: a 3x3 stride-2 stem, then seven stages of inverted residuals
//   x -> 1x1 expand, ReLU6 -> 3x3 depthwise, ReLU6 -> 1x1 project (-> + x where stride 1 and equal channels).
// As TIE-KD's depth encoder it is dilated: the last four stages keep 1/8 of the image's size. Taps: 24 channels at 1/4,
// and 32, 96 and 320 at 1/8. Without dilation it is the classifier, with a fifth of the work. Taps: 16, 24, 32, 96 and
// 320 channels at 1/2 to 1/32.
#pragma once

#include <span>
#include <vector>

#include "models/encoder.h"

namespace depthstill {

struct MobileNetV2Stage {
  int expand = 1;  // the hidden width is expand * input channels
  int64_t channels = 0;
  int blocks = 1;
  int stride = 1, dilation = 1;  // those of the first block; the others have 1
  bool tap = false;
};

std::span<const MobileNetV2Stage> mobilenet_v2_dilated();     // output stride 8
std::span<const MobileNetV2Stage> mobilenet_v2_classifier();  // output stride 32, as trained on ImageNet

class MobileNetV2 final : public Encoder {
 public:
  explicit MobileNetV2(std::span<const MobileNetV2Stage> stages = mobilenet_v2_dilated());
  std::vector<Tensor> forward(const Tensor& image) const override;
  EncoderTrace trace(MapSize image) const override;

  struct Block {
    std::vector<const ConvBn*> units;
    bool residual = false, tap = false;
  };
  const ConvBn& stem() const { return *stem_; }
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  Block add_block(const MobileNetV2Stage& stage, int stage_index, int block_index, int64_t in_channels);

  const ConvBn* stem_ = nullptr;
  std::vector<Block> blocks_;
};

}  // namespace depthstill
