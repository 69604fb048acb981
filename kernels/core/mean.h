// Losses that are a mean over counted pixels leave this for their gradients.
#pragma once

#include "kernels/core/bf16.h"

namespace depthstill {

// result (2) = {sum / count, 1 / count}, zeros where nothing counts.
DS_HOST_DEVICE inline void assign_mean(double sum, double count, float* result) {
  result[0] = count > 0 ? static_cast<float>(sum / count) : 0.0f;
  result[1] = count > 0 ? static_cast<float>(1 / count) : 0.0f;
}

}  // namespace depthstill
