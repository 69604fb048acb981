#include "engine/data/sample.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace depthstill {

SampleImage::SampleImage(Image8 image) : width(image.width), height(image.height) {
  auto pixels = std::make_shared<const std::vector<uint8_t>>(std::move(image.rgb));
  rgb = *pixels;
  owner = std::move(pixels);
}

Image8 SampleImage::copy() const { return {width, height, std::vector<uint8_t>(rgb.begin(), rgb.end())}; }

SampleDepth::SampleDepth(DepthMap depth) : width(depth.width), height(depth.height) {
  auto values = std::make_shared<const std::vector<float>>(std::move(depth.metres));
  metres = *values;
  owner = std::move(values);
}

void SampleDepth::write_metres(float* out) const {
  if (units.empty()) {
    std::copy(metres.begin(), metres.end(), out);
    return;
  }
  const double scale = metres_per_unit;  // the same arithmetic as read_depth()'s
  for (const uint16_t unit : units) *out++ = static_cast<float>(unit * scale);
}

DepthMap SampleDepth::copy() const {
  DepthMap map{width, height, std::vector<float>(static_cast<size_t>(width) * static_cast<size_t>(height))};
  write_metres(map.metres.data());
  return map;
}

size_t Sample::bytes() const {
  const auto of_depth = [](const SampleDepth& map) { return map.metres.size_bytes() + map.units.size_bytes(); };
  return image.rgb.size_bytes() + of_depth(depth) + of_depth(teacher) + sizeof(Sample);
}

}  // namespace depthstill
