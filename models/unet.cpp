#include "models/unet.h"

#include <string>

#include "engine/init.h"
#include "models/mobilenet_v2.h"
#include "models/resnet.h"

namespace depthstill {

struct UnetModel::Architecture {
  const char* name;
  std::unique_ptr<Encoder> (*make_encoder)();
  std::vector<int64_t> widths;  // of the decoder, shallow to deep
  int doublings;
};

const UnetModel::Architecture& UnetModel::find(std::string_view name) {
  static const std::vector<Architecture> table = {
      {"mobilenet_unet", [] { return std::unique_ptr<Encoder>(new MobileNetV2); }, {128, 256, 512, 2048}, 2},
      {"resnet18_unet", [] { return std::unique_ptr<Encoder>(new ResNet(18)); }, {128, 128, 256, 256, 512}, 1},
      {"resnet50_unet", [] { return std::unique_ptr<Encoder>(new ResNet(50)); }, {128, 256, 512, 1024, 2048}, 1},
  };
  for (const Architecture& architecture : table) {
    if (name == architecture.name) return architecture;
  }
  fail("U-Net student: got the unknown name \"", name, '"');
}

UnetModel::UnetModel(std::string_view name, const ModelOptions& options) : UnetModel(find(name), options) {}

UnetModel::UnetModel(const Architecture& architecture, const ModelOptions& options)
    : DepthModel(architecture.name, options, {InputRule::Fit::kPad, 0, 1 << architecture.doublings}),
      encoder_(architecture.make_encoder()),
      decoder_({encoder_->tap_channels(), architecture.widths, architecture.doublings,
                options.head == Head::kDpm ? options.bins : 0}) {
  check(options.head != Head::kRelative, architecture.name, ": expected the head dpm or regression, got relative");
  add_child("backbone", *encoder_);
  add_child("decode_head", decoder_);
}

Tensor UnetModel::run(const Tensor& image, int64_t first_needed_row) const {
  return decoder_.forward(encoder_->forward(image), first_needed_row);
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
    else if (entry.layout != Layout::kPlain)
      kaiming_normal_fan_out(x, entry.layout, seed, entry.name);
  }
}

}  // namespace depthstill
