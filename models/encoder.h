// Encoders are sequences of "convolution, batch norm, activation" units that tap their own feature maps at several
// scales.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/nn.h"

namespace depthstill {

// Keys of one unit, without the last part ("weight", "running_mean", ...).
struct UnitNames {
  std::string conv, bn;                          // names below the encoder, as in the published TIE-KD checkpoints
  std::string torchvision_conv, torchvision_bn;  // names in torchvision's classifiers
};

struct ConvBn {
  UnitNames names;
  std::unique_ptr<Convolution> conv;
  std::unique_ptr<BatchNorm2d> bn;

  Tensor forward(const Tensor& x) const { return forward_chain(x, std::array{link()}); }
  ConvNorm link() const { return {conv.get(), bn.get()}; }
};

struct MapSize {
  int64_t height = 0, width = 0;
  bool operator==(const MapSize&) const = default;
};

// Sizes and work of a forward pass, from the architecture alone.
struct EncoderTrace {
  int64_t macs = 0;
  std::vector<MapSize> taps;
};

class Encoder : public Module {
 public:
  // (N, H, W, 3) -> feature maps, shallow to deep.
  virtual std::vector<Tensor> forward(const Tensor& image) const = 0;
  virtual EncoderTrace trace(MapSize image) const = 0;
  const std::vector<int64_t>& tap_channels() const { return tap_channels_; }
  // The units stand in the order of the forward pass; the first one reads the image.
  const std::deque<ConvBn>& units() const { return units_; }

 protected:
  const ConvBn* add_unit(UnitNames names, std::unique_ptr<Convolution> conv, int64_t channels, Activation activation);
  // Counts a unit's work and returns the size of its output.
  static MapSize trace_unit(const ConvBn& unit, MapSize in, int64_t& macs);

  std::vector<int64_t> tap_channels_;

 private:
  std::deque<ConvBn> units_;
};

}  // namespace depthstill
