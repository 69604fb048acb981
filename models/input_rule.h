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
    kLowerBound,  // resized, aspect kept: both sides at least `size`
    kUpperBound,  // resized, aspect kept: both sides at most `size`
  };
  enum class Way : uint8_t {
    kOneStep,   // cubically to multiples inside the bound (Depth Anything V2, MiDaS)
    kTwoSteps,  // to the bound, then to the nearest multiples: fitted_image() (Depth Anything 3)
  };
  enum class Output : uint8_t {
    kCorners,       // bilinear with aligned corners
    kPixelCentres,  // bilinear on pixel centres, edges repeated (Depth Anything 3)
    kCubic,         // MiDaS
  };
  Fit fit = Fit::kPad;
  int size = 0;
  int multiple = 1;  // divisor of both sides
  Way way = Way::kOneStep;
  Output output = Output::kCorners;  // how a map is brought back to the image's size
};

// The factor of both sides that brings one of them to `size`.
inline double bounding_scale(ImageSize image, const InputRule& rule) {
  const double by_width = static_cast<double>(rule.size) / image.width;
  const double by_height = static_cast<double>(rule.size) / image.height;
  return rule.fit == InputRule::Fit::kLowerBound ? std::max(by_width, by_height) : std::min(by_width, by_height);
}

// The size after the first of two steps: sides rounded to pixels, half to even.
inline ImageSize bounded_size(ImageSize image, const InputRule& rule) {
  const double scale = bounding_scale(image, rule);
  const auto side = [&](int length) { return std::max(1, static_cast<int>(std::nearbyint(scale * length))); };
  return {side(image.width), side(image.height)};
}

// An image of this size is resized to fitted_size(). In one step (Depth Anything V2 and MiDaS, util/transform.py): one
// scale for both sides, each rounded to the nearest multiple, half to even, and to the multiple inside the bound where
// that falls outside; lower bound 518, multiple 14: 640x480 -> 686x518. In two steps (Depth Anything 3,
// utils/io/input_processor.py): each of bounded_size() to the nearest multiple, half up, on whichever side of the
// bound; upper bound 504, multiple 14: 504x371 -> 504x378.
inline ImageSize fitted_size(ImageSize image, const InputRule& rule) {
  if (rule.fit == InputRule::Fit::kPad) return image;
  if (rule.way == InputRule::Way::kTwoSteps) {
    const auto nearest = [&](int length) {
      return std::max((length + rule.multiple / 2) / rule.multiple, 1) * rule.multiple;
    };
    const ImageSize first = bounded_size(image, rule);
    return {nearest(first.width), nearest(first.height)};
  }
  const bool lower = rule.fit == InputRule::Fit::kLowerBound;
  const double scale = bounding_scale(image, rule);
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
