#include "engine/ops/dpm_map.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr int64_t kChannelMultiple = 8;

// weight (O, R, S, C) or bias (O), with zeros up to `filters`.
Tensor pad_filters(const Tensor& parameter, int64_t filters) {
  const int64_t before = parameter.size(0), size = parameter.numel() / before;
  const Tensor padded = pad_rows(reshape(parameter, {1, before, size}), 0, filters - before);
  if (parameter.shape().rank() == 1) return reshape(padded, {filters});
  return reshape(padded, {filters, parameter.size(1), parameter.size(2), parameter.size(3)});
}

bool fuses(const DpmMap& map, DpmHeadWay way) {
  return !map.logits.defined() && way == DpmHeadWay::kFused &&
         dpm_head_supported(map.x.device(), map.x.dtype(), map.x.size(3), map.bins);
}

}  // namespace

Tensor stored_logits(const Tensor& x, const DpmHead& head) {
  const ProfileRange range("fwd", head.path);
  const int64_t bins = head.weight.size(0);
  const int64_t channels = (bins + kChannelMultiple - 1) / kChannelMultiple * kChannelMultiple;
  if (x.device() == Device::kCpu || channels == bins) return conv2d(x, head.weight, head.bias, {});
  return conv2d(x, pad_filters(head.weight, channels), pad_filters(head.bias, channels), {});
}

DpmOutput dpm_loss(const DpmMap& map, const Tensor& teacher, const DpmOptions& options, DpmHeadWay way) {
  if (fuses(map, way)) return dpm_head_loss(map.x, map.head.weight, map.head.bias, teacher, map.bins, options);
  return dpm_loss(map.logits.defined() ? map.logits : stored_logits(map.x, map.head), teacher, map.bins, options);
}

Tensor dpm_depth(const DpmMap& map, DpmHeadWay way) {
  if (fuses(map, way)) return dpm_head_depth(map.x, map.head.weight, map.head.bias, map.bins);
  return dpm_depth(map.logits.defined() ? map.logits : stored_logits(map.x, map.head), map.bins);
}

Tensor dpm_logits(const DpmMap& map) {
  if (map.logits.defined()) return map.logits;
  const ProfileRange range("fwd", map.head.path);
  return conv2d(map.x, map.head.weight, map.head.bias, {});
}

}  // namespace depthstill
