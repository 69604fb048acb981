#include "models/encoder.h"

#include <utility>

namespace depthstill {

const ConvBn* Encoder::add_unit(UnitNames names, std::unique_ptr<Convolution> conv, int64_t channels,
                                Activation activation) {
  units_.push_back({std::move(names), std::move(conv), std::make_unique<BatchNorm2d>(channels, activation)});
  const ConvBn& unit = units_.back();
  add_child(unit.names.conv, *unit.conv);
  add_child(unit.names.bn, *unit.bn);
  return &unit;
}

MapSize Encoder::trace_unit(const ConvBn& unit, MapSize in, int64_t& macs) {
  const MapSize out{unit.conv->output_size(in.height), unit.conv->output_size(in.width)};
  macs += out.height * out.width * unit.conv->macs_per_pixel();
  return out;
}

}  // namespace depthstill
