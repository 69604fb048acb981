// How a prediction is brought to the truth's scale before it is scored.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace depthstill {

enum class Alignment : uint8_t {
  kNone,    // metres as they are
  kMedian,  // times median(truth) / median(prediction), each the mean of the two middle values
};
const char* describe(Alignment alignment);  // "no median scaling", "median scaling per image"

// a = scale * p + shift.
struct Fit {
  double scale = 1, shift = 0;
};

// Over the pixels with valid != 0. Throws Error, naming `name`, if they do not determine it.
Fit fit(Alignment alignment, const std::string& name, std::span<const float> prediction, std::span<const float> truth,
        std::span<const uint8_t> valid);

}  // namespace depthstill
