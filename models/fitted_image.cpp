#include "models/fitted_image.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/data/cubic.h"
#include "engine/data/pixels.h"

namespace depthstill {
namespace {

Image8 step(const Image8& image, ImageSize size) {
  if (size.width <= image.width && size.height <= image.height) return resize(image, size);
  const std::vector<float> pixels = resize_cubic(image, size);
  Image8 result{size.width, size.height, std::vector<uint8_t>(pixels.size())};
  std::transform(pixels.begin(), pixels.end(), result.rgb.begin(),
                 [](float value) { return static_cast<uint8_t>(std::nearbyint(std::clamp(value, 0.0f, 255.0f))); });
  return result;
}

}  // namespace

Image8 fitted_image(const Image8& image, const InputRule& rule) {
  const ImageSize first = bounded_size(image.size(), rule), last = fitted_size(image.size(), rule);
  const Image8 bounded = first == image.size() ? image : step(image, first);
  return last == first ? bounded : step(bounded, last);
}

}  // namespace depthstill
