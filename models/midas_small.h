// MiDaS v2.1 small (Ranftl et al. 2020), published as midas_v21_small_256: relative inverse depth.
//   encoder  EfficientNet-Lite3 as TensorFlow trained it ("SAME" padding, batch norm eps 1e-3, ReLU6, no squeeze and
//            excitation); taps at 1/4, 1/8, 1/16 and 1/32 with 32, 48, 136 and 384 channels
//   decoder  a 3x3 convolution per tap to 64, 128, 256 and 512 channels; from deep to shallow, two residual units, a
//            doubling and a 1x1 convolution per tap; then the head with one more doubling
// State names are those of the checkpoint.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/depth_model.h"

namespace depthstill {

class MidasSmall final : public DepthModel {
 public:
  static constexpr InputRule kInputRule{InputRule::Fit::kUpperBound, 256, 32};
  MidasSmall(std::string_view name, const ModelOptions& options);

  // Draws convolutions as UnetModel does, Kaiming normal over fan-out, with zero biases; the output convolution uniform
  // in +-1/sqrt(fan-in).
  void initialize(uint64_t seed) override;
  ModelFamily family() const override { return ModelFamily::kMidasSmall; }
  NetworkParts parts() const override { return {"pretrained.", "scratch."}; }
  double gmac(int64_t height, int64_t width) const override;
  // The dead parameters are those of the deepest fusion, which has no skip.
  std::vector<DeadParameter> dead_parameters() const override;

  using Unit = ConvNorm;
  struct Block {
    std::vector<Unit> units;
    bool residual = false, tap = false;
  };
  struct Fusion {
    const Conv2d *residual1[2] = {}, *residual2[2] = {};  // residual1: of the skip; none at the deepest tap
    const Conv2d* out = nullptr;
  };

  // These are its parts, in the order of the forward pass.
  const Unit& stem() const { return stem_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  const std::vector<const Conv2d*>& tap_convs() const { return taps_; }  // shallow to deep, as the fusions
  const std::vector<Fusion>& fusions() const { return fusions_; }
  const Conv2d& head(size_t index) const { return *head_[index]; }  // 0, then a doubling, 1, 2

 protected:
  // Computes all rows and crops: the encoder's batch norms need whole maps anyway.
  Tensor run(const Tensor& image, int64_t first_needed_row, Activation last, const Extras& extras) const override;

 private:
  const Conv2d& add_conv(const std::string& name, const Conv2dConfig& config);
  Unit add_unit(const std::string& conv_name, std::unique_ptr<Convolution> conv, const std::string& norm_name,
                int64_t channels, Activation activation);
  void add_encoder();
  void add_decoder();
  std::vector<Tensor> encode(const Tensor& image) const;

  std::vector<std::unique_ptr<Convolution>> convs_;
  std::deque<BatchNorm2d> norms_;
  Unit stem_{};
  std::vector<Block> blocks_;
  std::vector<const Conv2d*> taps_;  // shallow to deep, as fusions_
  std::vector<Fusion> fusions_;
  const Conv2d* head_[3] = {};
};

}  // namespace depthstill
