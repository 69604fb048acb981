// An Alignment brings a prediction to the truth's scale before it is scored.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace depthstill {

enum class Alignment : uint8_t {
  kNone,    // metres as they are
  kMedian,  // factor median(truth) / median(prediction), of an even count the mean of the two middle values
};
const char* describe(Alignment alignment);  // "no median scaling", "median scaling per image"

// a = scale * p + shift.
struct Fit {
  double scale = 1, shift = 0;
};

// Fits over the pixels with valid != 0; if there are none, nothing changes. Throws Error, naming `name`, if they do not
// determine the fit.
Fit fit(Alignment alignment, const std::string& name, std::span<const float> prediction, std::span<const float> truth,
        std::span<const uint8_t> valid);

}  // namespace depthstill
