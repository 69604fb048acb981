#include "kernels/context/context_statistics.h"

#include "engine/ops/map_pair.h"
#include "engine/profile.h"

namespace depthstill {

Contexts context_statistics(const Tensor& x, const Tensor& y, const ContextRule& rule) {
  static_assert(sizeof(ContextStats) == 5 * sizeof(int32_t));
  const MapShape shape = check_map_pair("context_statistics", x, y);
  const Device device = x.device();
  Contexts contexts{rule, empty(x.shape(), DType::kUint8, device),
                    empty({2, shape.N, context_count(rule.kind), 5}, DType::kInt32, device)};
  const double per_pixel = rule.kind == ContextKind::kQuantile ? 68 : 53;
  const OpRange range("context_statistics", [&] { return Work{0, per_pixel * static_cast<double>(x.numel())}; });
  run(device, cpu::context_statistics, cuda::context_statistics)(shape, rule, x, y, contexts.leaves,
                                                                 static_cast<ContextStats*>(contexts.stats.raw()));
  return contexts;
}

}  // namespace depthstill
