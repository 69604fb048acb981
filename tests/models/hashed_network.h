// Weights and images from an integer hash, for which published code has given numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "engine/nn.h"
#include "kernels/core/parallel.h"
#include "tests/hash_uniform.h"

namespace depthstill::test {

// offset + scale * hash_uniform(), of element i of tensor t
struct HashRange {
  double offset, scale;
};
inline HashRange hash_range(const std::string& name, const Shape& file_shape) {
  if (name.ends_with("gamma")) return {0.5, 0.1};
  if (name.find("norm") != std::string::npos && name.ends_with("weight")) return {1.0, 0.1};
  if (name.ends_with("pos_embed") || name.ends_with("cls_token")) return {0.0, 0.2};
  if (name.ends_with("bias")) return {0.0, 0.1};
  return {0.0, std::sqrt(3.0 * static_cast<double>(file_shape[0]) / static_cast<double>(file_shape.numel()))};
}

// Tensors are numbered by their published names in byte order. `published`: all that are counted, by our names.
inline void fill_with_hash(Module& network, const std::map<std::string, std::string>& published) {
  std::vector<std::string> names;
  for (const auto& [ours, theirs] : published) names.push_back(theirs);
  std::sort(names.begin(), names.end());
  for (const StateEntry& entry : network.state()) {
    const auto found = std::lower_bound(names.begin(), names.end(), published.at(entry.name));
    const auto t = static_cast<uint32_t>(std::distance(names.begin(), found));
    const bool plain = entry.layout == Layout::kPlain;
    const Tensor file = plain ? *entry.tensor : empty(to_file_shape(entry.tensor->shape(), entry.layout));
    const HashRange range = hash_range(entry.name, file.shape());
    float* values = file.data<float>();
    parallel_for(file.numel(), 1 << 14, [&](int64_t i) {
      values[i] = static_cast<float>(range.offset + range.scale * hash_uniform(t, static_cast<uint32_t>(i)));
    });
    if (!plain) copy_(*entry.tensor, from_file_layout(file, entry.layout));
  }
}

inline Tensor hash_image(int64_t height, int64_t width) {
  std::vector<float> values;
  for (int64_t pixel = 0; pixel < height * width; ++pixel) {
    for (uint32_t c = 0; c < 3; ++c)
      values.push_back(static_cast<float>(2.0 * hash_uniform(1000 + c, static_cast<uint32_t>(pixel))));
  }
  return tensor<float>({1, height, width, 3}, values);
}

}  // namespace depthstill::test
