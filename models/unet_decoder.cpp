#include "models/unet_decoder.h"

#include <algorithm>

#include "engine/profile.h"
#include "kernels/upsample_bilinear.h"

namespace depthstill {
namespace {

constexpr bool kAlignCorners = true;

constexpr int64_t kMaxWidth = 8192;

// The published code always builds this many.
constexpr int kReferenceDoublings = 2;

std::string doubling_name(int index) { return index == 0 ? "upsample_custom" : "upsample_custom2"; }

Tensor from_row(const Tensor& map, int64_t first) {
  return first == 0 ? map : crop_rows(map, first, map.size(1) - first);
}

}  // namespace

UnetDecoder::UnetDecoder(const DecoderConfig& config) : pointwise_head_(config.bins > 0 || config.relative) {
  const size_t levels = config.taps.size();
  check(levels >= 2 && config.widths.size() == levels, "unet_decoder: expected one width per tap, got ",
        config.widths.size(), " for ", levels, " taps");
  check(config.doublings >= 0 && config.doublings <= kReferenceDoublings,
        "unet_decoder: expected 0 to 2 doublings, got ", config.doublings);
  for (const int64_t each : config.widths) {
    check(each >= 1 && each <= kMaxWidth, "unet_decoder: expected widths of 1 to ", kMaxWidth, " channels, got ", each);
  }
  int64_t width = config.widths.back();
  add_conv("conv_list.0.conv", config.taps.back(), width, 1, Activation::kNone);
  for (size_t k = 1; k < levels; ++k) {
    const size_t tap = levels - 1 - k;
    const std::string block = concat_text("conv_list.", k);
    steps_.push_back({Kind::kJoin, "join", nullptr, tap, block});
    add_conv_pair(block, width + config.taps[tap], config.widths[tap]);
    width = config.widths[tap];
  }
  for (int k = 0; k < config.doublings; ++k) {
    steps_.push_back({Kind::kDouble, "double", nullptr, 0, doubling_name(k)});
    add_conv_pair(doubling_name(k), width, width);
  }
  if (config.bins > 0)
    add_conv("conv_out.0", width, config.bins, 1, Activation::kNone);
  else
    add_conv("conv_depth", width, 1, config.relative ? 1 : 3, Activation::kNone);
  if (config.published && !config.relative) list_dead_parameters(config);
}

std::vector<int64_t> UnetDecoder::stored_widths(const std::function<int64_t(const std::string&)>& channels_of) {
  std::vector<int64_t> widths;
  for (int64_t width = channels_of("conv_list.0.conv"); width > 0;
       width = channels_of(concat_text("conv_list.", widths.size(), ".convB.conv"))) {
    widths.insert(widths.begin(), width);
  }
  return widths;
}

void UnetDecoder::add_conv(const std::string& name, int64_t in, int64_t out, int kernel, Activation activation) {
  convs_.push_back(std::make_unique<Conv2d>(Conv2dConfig{in, out, kernel, 1, 1, true, activation}));
  add_child(name, *convs_.back());
  steps_.push_back({Kind::kConv, name, convs_.back().get()});
}

void UnetDecoder::add_conv_pair(const std::string& name, int64_t in, int64_t out) {
  add_conv(name + ".convA.conv", in, out, 3, Activation::kRelu);
  add_conv(name + ".convB.conv", out, out, 3, Activation::kRelu);
}

void UnetDecoder::list_dead_parameters(const DecoderConfig& config) {
  const int64_t width = config.widths.front();
  const auto add = [&](const std::string& name, const Shape& weight) {
    dead_.push_back({name + ".weight", weight});
    dead_.push_back({name + ".bias", {weight[0]}});
  };
  for (int k = config.doublings; k < kReferenceDoublings; ++k)
    for (const char* conv : {".convA.conv", ".convB.conv"}) add(doubling_name(k) + conv, {width, width, 3, 3});
  if (config.bins > 0)
    add("conv_depth", {1, width, 3, 3});
  else
    add("conv_out.0", {kReferenceUnusedBins, width, 1, 1});
}

std::vector<MapSize> UnetDecoder::sizes(const std::vector<MapSize>& taps) const {
  std::vector<MapSize> out{taps.back()};
  for (const Step& step : steps_) {
    MapSize size = out.back();
    if (step.kind == Kind::kJoin) size = taps[step.tap];
    if (step.kind == Kind::kDouble) size = {2 * size.height, 2 * size.width};
    out.push_back(size);
  }
  return out;
}

std::vector<int64_t> UnetDecoder::first_rows(const std::vector<MapSize>& taps, int64_t first_needed_row) const {
  const std::vector<MapSize> map = sizes(taps);
  check(first_needed_row >= 0 && first_needed_row < map.back().height, "unet_decoder: expected a first row in 0..",
        map.back().height - 1, ", got ", first_needed_row);
  std::vector<int64_t> row(steps_.size() + 1);
  row.back() = first_needed_row;
  for (size_t i = steps_.size(); i-- > 0;) {
    const Step& step = steps_[i];
    if (step.kind == Kind::kConv)
      row[i] = std::max<int64_t>(row[i + 1] - step.conv->padding(), 0);
    else if (map[i] == map[i + 1])  // 1/8 to 1/8 in the dilated MobileNetV2: nothing is resized
      row[i] = row[i + 1];
    else
      row[i] = upsample_first_input_row(row[i + 1], map[i].height, map[i + 1].height, kAlignCorners);
  }
  return row;
}

Tensor UnetDecoder::forward(const std::vector<Tensor>& taps, int64_t first_needed_row) const {
  const size_t steps = steps_.size() - (pointwise_head_ ? 1 : 0);  // that head needs the rows it gives
  std::vector<MapSize> tap_sizes;
  for (const Tensor& tap : taps) tap_sizes.push_back({tap.size(1), tap.size(2)});
  const std::vector<MapSize> map = sizes(tap_sizes);
  const std::vector<int64_t> row = first_rows(tap_sizes, first_needed_row);

  const ProfileRange first_range("fwd", path(), "conv_list.0");
  Tensor x = from_row(taps.back(), row[0]);  // from here on, x holds rows [row[i], map[i].height)
  for (size_t i = 0; i < steps; ++i) {
    const Step& step = steps_[i];
    const ProfileRange range("fwd", path(), step.block);
    switch (step.kind) {
      case Kind::kConv:
        // The rows that x has above the first output row stand in for that much padding.
        x = step.conv->forward(x, step.conv->padding() - static_cast<int>(row[i + 1] - row[i]));
        break;
      case Kind::kJoin:
        x = upsample_concat(x, {row[i], map[i].height}, taps[step.tap], row[i + 1], kAlignCorners);
        break;
      case Kind::kDouble:
        x = upsample_bilinear(x, {row[i], map[i].height}, {row[i + 1], map[i + 1].height}, map[i + 1].width,
                              kAlignCorners);
        break;
    }
  }
  return x;
}

int64_t UnetDecoder::macs(const std::vector<MapSize>& taps, int64_t first_needed_row) const {
  const std::vector<MapSize> map = sizes(taps);
  const std::vector<int64_t> row = first_rows(taps, first_needed_row);
  int64_t macs = 0;
  for (size_t i = 0; i < steps_.size(); ++i)
    if (steps_[i].kind == Kind::kConv)
      macs += (map[i + 1].height - row[i + 1]) * map[i + 1].width * steps_[i].conv->macs_per_pixel();
  return macs;
}

std::vector<std::string> UnetDecoder::step_names() const {
  std::vector<std::string> names;
  for (const Step& step : steps_) names.push_back(step.name);
  return names;
}

const Conv2d& UnetDecoder::output_conv() const { return *convs_.back(); }

}  // namespace depthstill
