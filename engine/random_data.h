// Data for timing: neither constant nor special, the same in every run.
#pragma once

#include "engine/tensor.h"

namespace depthstill {

Tensor random_values(const Shape& shape, DType dtype, Device device);  // numbers in [-2, 2)

// Depths as a street has them, (N, H, W): a ramp with noise, below d_max.
Tensor random_teacher(const Shape& shape, float d_max, Device device);

}  // namespace depthstill
