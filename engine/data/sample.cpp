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
  auto floats = std::make_shared<const std::vector<float>>(std::move(depth.values));
  values = *floats;
  owner = std::move(floats);
}

void SampleDepth::write_values(float* out) const {
  if (units.empty()) {
    std::copy(values.begin(), values.end(), out);
    return;
  }
  const double scale = metres_per_unit;  // the same arithmetic as read_map()'s
  for (const uint16_t unit : units) *out++ = static_cast<float>(unit * scale);
}

DepthMap SampleDepth::copy() const {
  DepthMap map{width, height, std::vector<float>(static_cast<size_t>(width) * static_cast<size_t>(height))};
  write_values(map.values.data());
  return map;
}

size_t Sample::bytes() const {
  const auto of_depth = [](const SampleDepth& map) { return map.values.size_bytes() + map.units.size_bytes(); };
  return image.rgb.size_bytes() + of_depth(depth) + of_depth(teacher) + sizeof(Sample);
}

}  // namespace depthstill
