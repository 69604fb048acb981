#include "engine/random_data.h"

#include <algorithm>
#include <random>
#include <vector>

#include "engine/ops.h"

namespace depthstill {

Tensor random_values(const Shape& shape, DType dtype, Device device) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  uint32_t state = 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) * 0x1p-22f - 2.0f;
  }
  const NoGrad no_grad;
  const Tensor tensor_fp32 = tensor<float>(shape, values, device);
  return dtype == DType::kFloat ? tensor_fp32 : cast(tensor_fp32, dtype);
}

Tensor random_teacher(const Shape& shape, float d_max, Device device) {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> factor(0.9f, 1.1f);
  std::vector<float> values;
  values.reserve(static_cast<size_t>(shape.numel()));
  for (int64_t i = 0; i < shape.numel(); ++i) {
    const float height = static_cast<float>(i / shape[2] % shape[1] + 1) / static_cast<float>(shape[1]);
    values.push_back(std::min(0.06f * d_max / height * factor(random), 0.95f * d_max));
  }
  return tensor<float>(shape, values, device);
}

}  // namespace depthstill
