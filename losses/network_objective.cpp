#include "losses/network_objective.h"

#include <algorithm>
#include <cmath>

#include "engine/allocator.h"

namespace depthstill {

bool NetworkObjective::predicts(std::span<const BatchTensors> views) {
  const Tensor& images = views[0].image;
  const Device device = images.device();
  Tensor image = empty({1, images.size(1), images.size(2), images.size(3)}, images.dtype(), device);
  copy_bytes(image.raw(), device, images.raw(), device, image.bytes());
  const NoGrad no_grad;
  model_.eval();
  const Tensor depth = to_device(depth_of(model_.forward(image)), Device::kCpu);
  model_.train();
  const std::vector<float> values = to_vector<float>(depth);
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

}  // namespace depthstill
