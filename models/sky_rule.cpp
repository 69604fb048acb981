#include "models/sky_rule.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace depthstill {
namespace {

constexpr double kFarQuantile = 0.99;

// torch.quantile: linear between the two values around (n - 1) * share. `values` are reordered.
float quantile(std::vector<float>& values, double share) {
  const double position = static_cast<double>(values.size() - 1) * share;
  const auto below = static_cast<std::ptrdiff_t>(position);
  const auto at = values.begin() + below;
  std::nth_element(values.begin(), at, values.end());
  const float low = *at, high = at + 1 == values.end() ? low : *std::min_element(at + 1, values.end());
  return low + static_cast<float>(position - static_cast<double>(below)) * (high - low);
}

bool is_sky(float sky) { return sky >= kSkyThreshold; }

}  // namespace

void fill_sky(std::span<float> depth, std::span<const float> sky) {
  std::vector<float> others;
  for (size_t i = 0; i < depth.size(); ++i) {
    if (!is_sky(sky[i])) others.push_back(depth[i]);
  }
  if (others.size() <= kFewPixels || depth.size() - others.size() <= kFewPixels) return;
  const float far = quantile(others, kFarQuantile);
  for (size_t i = 0; i < depth.size(); ++i) {
    if (is_sky(sky[i])) depth[i] = far;
  }
}

void to_sky_label(std::span<float> depth, std::span<const float> sky) {
  const auto of_sky = static_cast<size_t>(std::count_if(sky.begin(), sky.end(), is_sky));
  const bool dropped = depth.size() - of_sky <= kFewPixels;
  for (size_t i = 0; i < depth.size(); ++i) {
    const bool known = !dropped && std::isfinite(depth[i]) && std::isfinite(sky[i]);
    depth[i] = !known ? std::numeric_limits<float>::quiet_NaN() : is_sky(sky[i]) ? 0.0f : 1.0f / depth[i];
  }
}

std::vector<float> labels_of(const DepthModel& teacher, const Tensor& images) {
  const NoGrad no_grad;
  const auto on_host = [](const Tensor& map) { return to_vector<float>(to_device(map, Device::kCpu)); };
  const Prediction prediction = teacher.forward(images);
  std::vector<float> labels = on_host(depth_of(prediction));
  if (!prediction.sky.defined()) return labels;
  const std::vector<float> sky = on_host(prediction.sky);
  const size_t plane = labels.size() / static_cast<size_t>(images.size(0));
  for (size_t at = 0; at < labels.size(); at += plane) {
    to_sky_label(std::span(labels).subspan(at, plane), std::span(sky).subspan(at, plane));
  }
  return labels;
}

MapKind label_kind(Head head) {
  if (head == Head::kRelativeDepth) return kRelativeInverseDepth;
  if (head == Head::kCanonicalDepth) return {Quantity::kInverseDepth, Ambiguity::kScale};
  return kind_of(head);
}

}  // namespace depthstill
