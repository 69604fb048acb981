// What the losses of relative maps check of a pair of maps and its statistics.
#pragma once

#include "engine/ops_loss.h"

namespace depthstill {

inline MapShape check_map_pair(const char* op, const Tensor& x, const Tensor& y) {
  check(x.shape().rank() == 3 && x.numel() > 0 && x.dtype() == DType::kFloat, op,
        ": expected an fp32 map (N, H, W), got ", x.dtype(), " ", x.shape());
  check(y.shape() == x.shape() && y.dtype() == DType::kFloat && y.device() == x.device(), op,
        ": expected an fp32 teacher's map ", x.shape(), " on ", x.device(), ", got ", y.dtype(), " ", y.shape(), " on ",
        y.device());
  const MapShape shape{x.size(0), x.size(1), x.size(2)};
  check(shape.pixels() < int64_t{1} << 31, op, ": expected maps of less than 2^31 pixels, got ", x.shape());
  return shape;
}

// Null where there are none.
inline const ContextStats* stats_of(const Contexts& contexts) {
  return contexts.stats.defined() ? static_cast<const ContextStats*>(contexts.stats.raw()) : nullptr;
}

inline ContextInput input_of(const Tensor& x, const Tensor& y, const Contexts& contexts) {
  return {x, y, contexts.leaves, stats_of(contexts)};
}

inline void check_contexts(const char* op, const Tensor& x, const Contexts& contexts) {
  check(contexts.leaves.defined() && contexts.leaves.shape() == x.shape() && contexts.leaves.device() == x.device(), op,
        ": expected the statistics of maps ", x.shape(), " on ", x.device());
}

}  // namespace depthstill
