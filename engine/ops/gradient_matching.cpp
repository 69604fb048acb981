#include "kernels/context/gradient_matching.h"

#include "engine/allocator.h"
#include "engine/ops/map_pair.h"
#include "engine/profile.h"

namespace depthstill {

Tensor gradient_matching(const Tensor& x, const Tensor& y, const Contexts& contexts, GradientMatchingOptions options) {
  const MapShape shape = check_map_pair("gradient_matching", x, y);
  check_contexts("gradient_matching", x, contexts);
  check(!contexts.rule.open, "gradient_matching: expected statistics of all counted pixels");
  check(options.scales >= 1 && options.scales <= kGradientScales, "gradient_matching: expected 1 to ", kGradientScales,
        " scales, got ", options.scales);
  const Device device = x.device();
  const ContextKind kind = contexts.rule.kind;
  options.reference = contexts.rule.reference;
  const OpRange range("gradient_matching", [&] { return Work{0, bytes_of(x, y, contexts.leaves)}; });
  Tensor result = empty({1 + kGradientScales}, DType::kFloat, device), loss = empty({1}, DType::kFloat, device);
  Tensor A = empty({shape.N}, DType::kFloat, device);
  run(device, cpu::gradient_matching, cuda::gradient_matching)(shape, kind, options, input_of(x, y, contexts),
                                                               GradientMatchingResult{result, A});
  copy_bytes(loss.raw(), device, result.raw(), device, sizeof(float));
  return record("gradient_matching", {x}, loss, [=, x = x.detach(), y = y.detach()](const Tensor& dy) -> Gradients {
    const OpRange backward("gradient_matching", [&] { return Work{0, bytes_of(x, y, contexts.leaves, x)}; });
    Tensor dx = empty_like(x);
    run(device, cpu::gradient_matching_grad, cuda::gradient_matching_grad)(
        shape, kind, options, input_of(x, y, contexts), GradientMatchingResult{result, A}, dy, dx);
    return {dx};
  });
}

}  // namespace depthstill
