#include "models/unet.h"

#include <string>

#include "engine/init.h"
#include "models/mobilenet_v2.h"
#include "models/resnet.h"

namespace depthstill {

std::unique_ptr<Encoder> make_encoder(const EncoderConfig& config) {
  if (config.kind == EncoderKind::kResNet) return std::make_unique<ResNet>(config.depth);
  return std::make_unique<MobileNetV2>(config.dilated ? mobilenet_v2_dilated() : mobilenet_v2_classifier());
}

UnetModel::UnetModel(std::string_view name, const UnetConfig& config, const ModelOptions& options)
    : DepthModel(std::string(name), options, input_rule_of(config)),
      published_(config.published),
      encoder_(make_encoder(config.encoder)),
      decoder_({encoder_->tap_channels(), options.decoder_widths.empty() ? config.widths : options.decoder_widths,
                config.doublings, options.head == Head::kDpm ? options.bins : 0, config.published,
                options.head == Head::kRelative}) {
  check(!is_exponential(options.head), name, ": expected the head dpm, regression or relative, got ",
        name_of(options.head));
  add_child("backbone", *encoder_);
  add_child("decode_head", decoder_);
}

Tensor UnetModel::run(const Tensor& image, int64_t first_needed_row, Activation last, const Extras&) const {
  const Tensor y = decoder_.forward(encoder_->forward(image), first_needed_row);
  return options().head == Head::kRelative ? decoder_.output_conv().forward_head(y, last) : y;
}

DpmHead UnetModel::dpm_head() const {
  if (options().head != Head::kDpm) return {};
  const Conv2d& conv = decoder_.output_conv();
  const std::vector<UnetDecoder::Step>& steps = decoder_.steps();
  return {conv.weight, conv.bias, steps[steps.size() - 2].conv->config().activation, conv.path()};
}

std::vector<DepthModel::DeadParameter> UnetModel::dead_parameters() const {
  std::vector<DeadParameter> dead;
  for (const auto& [name, shape] : decoder_.dead_parameters()) dead.push_back({"decode_head." + name, shape});
  return dead;
}

double UnetModel::gmac(int64_t height, int64_t width) const {
  const EncoderTrace trace = encoder_->trace({height, width});
  return static_cast<double>(trace.macs + decoder_.macs(trace.taps)) * 1e-9;
}

void UnetModel::initialize(uint64_t seed) {
  const Conv2d& output = decoder_.output_conv();
  const int64_t fan_in = output.macs_per_pixel() / output.config().out;
  for (const StateEntry& entry : parameters()) {
    const Tensor& x = *entry.tensor;
    if (x.raw() == output.weight.raw() || x.raw() == output.bias.raw())
      uniform_fan_in(x, fan_in, seed, entry.name);
    else if (entry.layout == Layout::kPlain)
      continue;
    else if (!published_ && entry.name.starts_with("decode_head."))
      kaiming_normal_fan_in(x, entry.layout, seed, entry.name);
    else
      kaiming_normal_fan_out(x, entry.layout, seed, entry.name);
  }
  start_above_zero(output);
}

}  // namespace depthstill
