// The dense prediction transformer's head (Ranftl et al. 2021) as Depth Anything V2 has it: four token maps are brought
// to four scales, fused from deep to shallow by residual convolution units, and turned into one map of the image's
// size. Depth Anything 3's has a second branch that says where the sky is.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/nn.h"

namespace depthstill {

// A SkyBranch is a second pair of last convolutions, of the same upsampled map, and what their result goes through.
enum class SkyBranch : uint8_t {
  kNone,
  kRelu,     // Depth Anything 3
  kSigmoid,  // its small students (LightlyTrain)
};

struct DptConfig {
  int64_t dim = 384;                                      // width of the tokens
  int64_t features = 64;                                  // channels of the fused maps
  std::array<int64_t, 4> out_channels{48, 96, 192, 384};  // channels of the reassembled maps, shallow to deep
  SkyBranch sky = SkyBranch::kNone;

  bool operator==(const DptConfig&) const = default;
};

class DptHead final : public Module {
 public:
  explicit DptHead(const DptConfig& config);
  ~DptHead() override;

  // Token maps (N, height, width, dim) -> (N, out_height, out_width, 1) fp32, after the activation `last`. A `sky` that
  // is not null becomes the same of the sky branch, before its activation, of a head that has one.
  Tensor forward(const std::vector<Tensor>& taps, int64_t out_height, int64_t out_width, Activation last,
                 Tensor* sky = nullptr) const;

  void initialize(uint64_t seed, const std::string& prefix);
  int64_t macs(int64_t height, int64_t width, int64_t out_height, int64_t out_width) const;  // work for a token grid
  const DptConfig& config() const { return config_; }
  const Conv2d& output_conv() const { return output_; }

 private:
  class ResidualUnit;
  class Fusion;

  Tensor reassemble(size_t level, const Tensor& tokens) const;

  DptConfig config_;
  std::vector<std::unique_ptr<Conv2d>> projects_, layer_rn_;
  ConvTranspose2d resize4_, resize2_;
  Conv2d resize_half_;
  std::vector<std::unique_ptr<Fusion>> fusions_;  // refinenet1 ... refinenet4
  Conv2d output_conv1_, output_conv2_, output_;
  std::unique_ptr<Conv2d> sky_conv_, sky_output_;
};

}  // namespace depthstill
