// The depth students of TIE-KD (Choi et al. 2023): an ImageNet encoder and the U-Net decoder, with a depth probability
// map, a regression head or a relative one; and a light one of the same parts.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "models/depth_model.h"
#include "models/unet_decoder.h"

namespace depthstill {

enum class EncoderKind : uint8_t { kMobileNetV2, kResNet };
struct EncoderConfig {
  EncoderKind kind = EncoderKind::kMobileNetV2;
  int depth = 0;        // kResNet: that of a row of resnet.cpp
  bool dilated = true;  // kMobileNetV2: output stride 8, else 32
  bool same_weights(const EncoderConfig& other) const { return kind == other.kind && depth == other.depth; }
};
std::unique_ptr<Encoder> make_encoder(const EncoderConfig& config);

struct UnetConfig {
  EncoderConfig encoder;
  std::vector<int64_t> widths;  // channels of the decoder, shallow to deep
  int doublings = 1;            // number from the shallowest tap to the image's size
  bool published = true;        // there is a published code, with its dead parameters
};

class UnetModel final : public DepthModel {
 public:
  static InputRule input_rule_of(const UnetConfig& config) { return {InputRule::Fit::kPad, 0, 1 << config.doublings}; }
  // The networks stand in models/model_table.cpp. Heads: dpm, regression, or relative, which nobody has published: a
  // 1 x 1 convolution and ReLU. options.decoder_widths take the place of the config's; throws Error if there is not one
  // per tap.
  UnetModel(std::string_view name, const UnetConfig& config, const ModelOptions& options);

  // Draws as the published code does: Kaiming normal over fan-out and zero bias, the output convolution uniform in
  // +-1/sqrt(fan-in); batch norms keep their zeros and ones. Of a network without published code the decoder is drawn
  // over fan-in: its widths fall from step to step, and over fan-out each step would make its maps larger.
  void initialize(uint64_t seed) override;
  Encoder* imagenet_encoder() override { return encoder_.get(); }
  ModelFamily family() const override { return ModelFamily::kUnet; }
  NetworkParts parts() const override { return {"backbone.", "decode_head."}; }
  double gmac(int64_t height, int64_t width) const override;
  std::vector<DeadParameter> dead_parameters() const override;
  DpmHead dpm_head() const override;

  const Encoder& encoder() const { return *encoder_; }
  const UnetDecoder& decoder() const { return decoder_; }

 protected:
  Tensor run(const Tensor& image, int64_t first_needed_row, Activation last, const Extras& extras) const override;

 private:
  bool published_;
  std::unique_ptr<Encoder> encoder_;
  UnetDecoder decoder_;
};

}  // namespace depthstill
