#include "models/midas_small.h"

#include <utility>

#include "engine/init.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr float kEncoderEps = 1e-3f;
constexpr int64_t kStemChannels = 32;
constexpr int kExpand = 6;

struct Stage {
  const char* name;  // name below "pretrained."; block j is name.j
  int kernel, stride;
  int64_t channels;
  int blocks;
  bool tap;
};
constexpr Stage kStages[] = {
    {"layer1.4", 3, 2, 32, 3, true},  {"layer2.0", 5, 2, 48, 3, true},   {"layer3.0", 3, 2, 96, 5, false},
    {"layer3.1", 5, 1, 136, 5, true}, {"layer4.0", 5, 2, 232, 6, false}, {"layer4.1", 3, 1, 384, 1, true},
};
constexpr int64_t kSeparableChannels = 24;  // channels of layer1.3.0, the block before the stages

constexpr int64_t kTapWidths[] = {64, 128, 256, 512};  // decoder channels at each tap, shallow to deep
constexpr int64_t kOutWidths[] = {64, 64, 128, 256};   // channels after each fusion
constexpr int64_t kHeadWidth = 32;

Conv2dConfig pointwise(int64_t in, int64_t out) { return {.in = in, .out = out, .bias = false}; }

Tensor doubled(const Tensor& x, bool align_corners) {
  return upsample_bilinear(x, 2 * x.size(1), 2 * x.size(2), align_corners);
}

// x + conv(relu(conv(relu(x)))); the first convolution applies the inner ReLU.
Tensor residual_unit(const Tensor& x, const Conv2d* const (&convs)[2]) {
  const ProfileRange range("fwd", convs[1]->path());
  return add(x, convs[1]->forward(convs[0]->forward(activation(x, Activation::kRelu))));
}

}  // namespace

MidasSmall::MidasSmall(std::string_view name, const ModelOptions& options)
    : DepthModel(std::string(name), options, kInputRule) {
  check(options.head == Head::kRelative || options.head == Head::kRegression, name,
        ": expected the head relative or regression, got ", name_of(options.head));
  add_encoder();
  add_decoder();
}

const Conv2d& MidasSmall::add_conv(const std::string& name, const Conv2dConfig& config) {
  auto conv = std::make_unique<Conv2d>(config);
  const Conv2d& added = *conv;
  add_child(name, *conv);
  convs_.push_back(std::move(conv));
  return added;
}

MidasSmall::Unit MidasSmall::add_unit(const std::string& conv_name, std::unique_ptr<Convolution> conv,
                                      const std::string& norm_name, int64_t channels, Activation activation) {
  add_child(conv_name, *conv);
  convs_.push_back(std::move(conv));
  BatchNorm2d& norm = norms_.emplace_back(channels, activation, kEncoderEps);
  add_child(norm_name, norm);
  return {convs_.back().get(), &norm};
}

void MidasSmall::add_encoder() {
  const std::string root = "pretrained.";
  const auto dense = [](const Conv2dConfig& config) { return std::make_unique<Conv2d>(config); };
  const auto depthwise = [](int64_t channels, int kernel, int stride) {
    return std::make_unique<DepthwiseConv2d>(channels, stride, 1, kernel, Padding::kSame);
  };
  stem_ = add_unit(
      root + "layer1.0",
      dense({.in = 3, .out = kStemChannels, .kernel = 3, .stride = 2, .bias = false, .padding = Padding::kSame}),
      root + "layer1.1", kStemChannels, Activation::kRelu6);
  const std::string first = root + "layer1.3.0.";
  Block& separable = blocks_.emplace_back();
  separable.units.push_back(
      add_unit(first + "conv_dw", depthwise(kStemChannels, 3, 1), first + "bn1", kStemChannels, Activation::kRelu6));
  separable.units.push_back(add_unit(first + "conv_pw", dense(pointwise(kStemChannels, kSeparableChannels)),
                                     first + "bn2", kSeparableChannels, Activation::kNone));
  int64_t channels = kSeparableChannels;
  for (const Stage& stage : kStages) {
    for (int j = 0; j < stage.blocks; ++j) {
      const std::string name = concat_text(root, stage.name, ".", j, ".");
      const int stride = j == 0 ? stage.stride : 1;
      const int64_t hidden = kExpand * channels;
      Block& block = blocks_.emplace_back();
      block.residual = stride == 1 && channels == stage.channels;
      block.units = {
          add_unit(name + "conv_pw", dense(pointwise(channels, hidden)), name + "bn1", hidden, Activation::kRelu6),
          add_unit(name + "conv_dw", depthwise(hidden, stage.kernel, stride), name + "bn2", hidden, Activation::kRelu6),
          add_unit(name + "conv_pwl", dense(pointwise(hidden, stage.channels)), name + "bn3", stage.channels,
                   Activation::kNone)};
      channels = stage.channels;
    }
    blocks_.back().tap = stage.tap;
  }
}

void MidasSmall::add_decoder() {
  const std::string root = "scratch.";
  size_t tap = 0;
  for (const Stage& stage : kStages) {
    if (!stage.tap) continue;
    const std::string name = concat_text(root, "layer", ++tap, "_rn");
    taps_.push_back(&add_conv(name, {.in = stage.channels, .out = kTapWidths[tap - 1], .kernel = 3, .bias = false}));
  }
  for (size_t k = 0; k < taps_.size(); ++k) {
    const std::string name = concat_text(root, "refinenet", k + 1, ".");
    const int64_t width = kTapWidths[k];
    Fusion& fusion = fusions_.emplace_back();
    fusion.out = &add_conv(name + "out_conv", {.in = width, .out = kOutWidths[k]});
    const auto add_pair = [&](const char* unit, const Conv2d*(&convs)[2]) {
      convs[0] =
          &add_conv(name + unit + ".conv1", {.in = width, .out = width, .kernel = 3, .activation = Activation::kRelu});
      convs[1] = &add_conv(name + unit + ".conv2", {.in = width, .out = width, .kernel = 3});
    };
    if (k + 1 < taps_.size()) add_pair("resConfUnit1", fusion.residual1);
    add_pair("resConfUnit2", fusion.residual2);
  }
  const int64_t width = kOutWidths[0];
  head_[0] = &add_conv(root + "output_conv.0", {.in = width, .out = width / 2, .kernel = 3});
  head_[1] = &add_conv(root + "output_conv.2",
                       {.in = width / 2, .out = kHeadWidth, .kernel = 3, .activation = Activation::kRelu});
  head_[2] = &add_conv(root + "output_conv.4", {.in = kHeadWidth, .out = 1});
}

std::vector<Tensor> MidasSmall::encode(const Tensor& image) const {
  std::vector<Tensor> taps;
  Tensor x = image;
  std::vector<Unit> chain = {stem_};  // it goes on to the first block, which has no residual
  for (const Block& block : blocks_) {
    chain.insert(chain.end(), block.units.begin(), block.units.end());
    const Tensor y = forward_chain(x, chain);
    chain.clear();
    const ProfileRange range("fwd", block.units.back().norm->path());
    x = block.residual ? add(x, y) : y;
    if (block.tap) taps.push_back(x);
  }
  return taps;
}

Tensor MidasSmall::run(const Tensor& image, int64_t first_needed_row, Activation last, const Extras&) const {
  const std::vector<Tensor> taps = encode(image);
  Tensor path;
  for (size_t k = taps.size(); k-- > 0;) {
    Tensor x = taps_[k]->forward(taps[k]);
    const ProfileRange range("fwd", fusions_[k].out->path());
    if (path.defined()) x = add(path, residual_unit(x, fusions_[k].residual1));
    path = fusions_[k].out->forward(doubled(residual_unit(x, fusions_[k].residual2), true));
  }
  const ProfileRange range("fwd", head_[0]->path());
  Tensor y = doubled(head_[0]->forward(path), false);
  y = head_[2]->forward_head(head_[1]->forward(y), last);
  return first_needed_row == 0 ? y : crop_rows(y, first_needed_row, y.size(1) - first_needed_row);
}

double MidasSmall::gmac(int64_t height, int64_t width) const {
  int64_t macs = 0;
  MapSize size{height, width};
  const auto count = [&](const Convolution& conv) {
    size = {conv.output_size(size.height), conv.output_size(size.width)};
    macs += size.height * size.width * conv.macs_per_pixel();
  };
  std::vector<MapSize> taps;
  count(*stem_.conv);
  for (const Block& block : blocks_) {
    for (const Unit& unit : block.units) count(*unit.conv);
    if (block.tap) taps.push_back(size);
  }
  for (size_t k = 0; k < taps.size(); ++k) {
    size = taps[k];
    count(*taps_[k]);
    for (const Conv2d* conv : fusions_[k].residual1) {
      if (conv != nullptr) count(*conv);
    }
    for (const Conv2d* conv : fusions_[k].residual2) count(*conv);
    size = {2 * size.height, 2 * size.width};
    count(*fusions_[k].out);
  }
  size = {height / 2, width / 2};
  count(*head_[0]);
  size = {height, width};
  count(*head_[1]);
  count(*head_[2]);
  return static_cast<double>(macs) * 1e-9;
}

std::vector<DepthModel::DeadParameter> MidasSmall::dead_parameters() const {
  std::vector<DeadParameter> dead;
  const int64_t width = kTapWidths[taps_.size() - 1];
  for (const char* conv : {"conv1", "conv2"}) {
    const std::string name = concat_text("scratch.refinenet", taps_.size(), ".resConfUnit1.", conv);
    dead.push_back({name + ".weight", {width, width, 3, 3}});
    dead.push_back({name + ".bias", {width}});
  }
  return dead;
}

void MidasSmall::initialize(uint64_t seed) {
  const Conv2d& output = *head_[2];
  for (const StateEntry& entry : parameters()) {
    const Tensor& x = *entry.tensor;
    if (x.raw() == output.weight.raw() || x.raw() == output.bias.raw())
      uniform_fan_in(x, output.macs_per_pixel() / output.config().out, seed, entry.name);
    else if (entry.layout != Layout::kPlain)
      kaiming_normal_fan_out(x, entry.layout, seed, entry.name);
  }
  start_above_zero(output);
}

}  // namespace depthstill
