#include "kernels/context/context_scales.h"

#include "engine/ops/map_pair.h"
#include "engine/profile.h"

namespace depthstill {

ScaleFigures context_scales(const Tensor& x, const Contexts& contexts) {
  check_contexts("context_scales", x, contexts);
  const Device device = x.device();
  const MapShape shape{x.size(0), x.size(1), x.size(2)};
  const ContextKind kind = contexts.rule.kind;
  const auto figure = [&] { return empty({1}, DType::kFloat, device); };
  const Tensor inverse_images = figure();
  ScaleFigures figures{figure(), figure(), figure(), figure(), figure(), figure()};
  {
    const OpRange range("context_scales", [&] { return Work{0, bytes_of(contexts.stats)}; });
    run(device, cpu::context_scales, cuda::context_scales)(
        shape.N, kind, stats_of(contexts),
        ContextScales{figures.t_student, figures.s_student, figures.t_teacher, figures.s_teacher, figures.bounded,
                      figures.anchor, inverse_images});
  }
  figures.anchor = record("context_scales", {x}, figures.anchor, [=, x = x.detach()](const Tensor& dy) -> Gradients {
    const OpRange backward("context_scales", [&] { return Work{0, bytes_of(x, contexts.leaves, x)}; });
    Tensor dx = empty_like(x);
    run(device, cpu::context_anchor_grad, cuda::context_anchor_grad)(shape, kind, x, contexts.leaves,
                                                                     stats_of(contexts), inverse_images, dy, dx);
    return {dx};
  });
  return figures;
}

}  // namespace depthstill
