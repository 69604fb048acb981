// An image brought to a network in two steps of 8 bits, as Depth Anything 3's input_processor.py does it with OpenCV:
// first to the bound of the rule, then to multiples. A step is cubic where a side grows, and else the mean over a
// pixel's area.
#pragma once

#include "engine/io/image.h"
#include "models/input_rule.h"

namespace depthstill {

// The image of fitted_size(), of a rule with Way::kTwoSteps. OpenCV's cubic pixels may differ by one, as its weights
// are rounded.
Image8 fitted_image(const Image8& image, const InputRule& rule);

}  // namespace depthstill
