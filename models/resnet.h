// ResNets (He et al. 2016; the stride of a bottleneck is in its 3x3 convolution). Five taps: the stem
// before max pooling at 1/2 of the image's size, then the four stages at 1/4 to 1/32.
#pragma once

#include <array>
#include <vector>

#include "models/encoder.h"

namespace depthstill {

// A ResNetConfig tells the depths apart.
struct ResNetConfig {
  int depth = 0;
  std::array<int, 4> blocks;  // blocks of each stage
  bool bottleneck = false;    // three convolutions to a block, of which the first and the last are 1x1
};
const ResNetConfig& resnet_config(int depth);  // throws Error for a depth that there is not

class ResNet final : public Encoder {
 public:
  explicit ResNet(int depth);
  std::vector<Tensor> forward(const Tensor& image) const override;
  EncoderTrace trace(MapSize image) const override;

  struct Block {
    std::vector<const ConvBn*> units;
    const ConvBn* downsample = nullptr;  // unit on the shortcut where size or channels change
    bool last_of_stage = false;
  };
  const ConvBn& stem() const { return *stem_; }
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  Block add_block(const std::string& name, int64_t in, int64_t width, int64_t out, int stride, bool bottleneck);

  const ConvBn* stem_ = nullptr;
  std::vector<Block> blocks_;
};

}  // namespace depthstill
