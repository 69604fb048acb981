// An InputRule says how an image of any size is brought to a network, and the network's map back to the image's size.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "engine/io/image.h"

namespace depthstill {

struct InputRule {
  enum class Fit : uint8_t {
    kPad,         // the image as it is, the last row and column repeated up to the multiple
    kLowerBound,  // resized cubically, aspect kept: both sides at least `size`
    kUpperBound,  // resized cubically, aspect kept: both sides at most `size`
  };
  Fit fit = Fit::kPad;
  int size = 0;
  int multiple = 1;           // divisor of both sides
  bool cubic_output = false;  // back to the image's size: bicubic (MiDaS), else bilinear with aligned corners
};

// An image of this size is resized to fitted_size() (Depth Anything and MiDaS, util/transform.py): one scale for both
// sides, each rounded to the nearest multiple, half to even, and to the multiple inside the bound where that falls
// outside. E.g. lower bound 518, multiple 14: 640x480 -> 686x518.
inline ImageSize fitted_size(ImageSize image, const InputRule& rule) {
  if (rule.fit == InputRule::Fit::kPad) return image;
  const bool lower = rule.fit == InputRule::Fit::kLowerBound;
  const double by_width = static_cast<double>(rule.size) / image.width;
  const double by_height = static_cast<double>(rule.size) / image.height;
  const double scale = lower ? std::max(by_width, by_height) : std::min(by_width, by_height);
  const auto side = [&](int length) {
    const double steps = scale * length / rule.multiple;
    int result = static_cast<int>(std::nearbyint(steps)) * rule.multiple;
    if (lower && result < rule.size) result = static_cast<int>(std::ceil(steps)) * rule.multiple;
    if (!lower && result > rule.size) result = static_cast<int>(std::floor(steps)) * rule.multiple;
    return std::max(result, rule.multiple);
  };
  return {side(image.width), side(image.height)};
}

// The size with the same aspect whose shorter side is `side` pixels.
inline ImageSize with_shorter_side(ImageSize image, int side) {
  const double scale = static_cast<double>(side) / std::min(image.width, image.height);
  const auto scaled = [&](int length) { return std::max(1, static_cast<int>(std::lround(scale * length))); };
  return {scaled(image.width), scaled(image.height)};
}

}  // namespace depthstill
