#include "kernels/context/context_loss.h"

#include "engine/allocator.h"
#include "engine/ops/map_pair.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

// What the gradient reads besides the maps and their statistics.
struct Kept {
  Tensor loss, sums = {}, borders = {};

  ContextLossResult result() const {
    return {loss, sums.defined() ? static_cast<ContextSums*>(sums.raw()) : nullptr,
            borders.defined() ? static_cast<TrimBorder*>(borders.raw()) : nullptr};
  }
};

}  // namespace

Tensor context_loss(const Tensor& x, const Tensor& y, const Contexts& contexts, ContextLossOptions options) {
  const MapShape shape = check_map_pair("context_loss", x, y);
  check(options.trim >= 0 && options.trim <= 1, "context_loss: expected trim in [0, 1], got ", options.trim);
  const bool normalises = options.norm != ContextNorm::kNone;
  if (normalises) check_contexts("context_loss", x, contexts);
  const Device device = x.device();
  const ContextKind kind = contexts.rule.kind;
  options.reference = contexts.rule.reference;
  const Contexts read = normalises ? contexts : Contexts{};
  const auto bytes = static_cast<double>(x.numel()) * (normalises ? 9.0 : 8.0);
  const OpRange range("context_loss", [&] { return Work{0, bytes * (options.trim > 0 ? 4.0 : 1.0)}; });
  Kept kept{empty({2}, DType::kFloat, device)};
  if (normalises) kept.sums = empty({shape.N, context_count(kind), 2}, DType::kFloat, device);
  if (options.trim > 0) kept.borders = empty({shape.N, 2}, DType::kFloat, device);
  Tensor loss = empty({1}, DType::kFloat, device);
  run(device, cpu::context_loss, cuda::context_loss)(shape, kind, options, input_of(x, y, read), kept.result());
  copy_bytes(loss.raw(), device, kept.loss.raw(), device, sizeof(float));
  return record("context_loss", {x}, loss, [=, x = x.detach(), y = y.detach()](const Tensor& dy) -> Gradients {
    const OpRange backward("context_loss", [&] { return Work{0, bytes + bytes_of(x)}; });
    Tensor dx = empty_like(x);
    run(device, cpu::context_loss_grad, cuda::context_loss_grad)(shape, kind, options, input_of(x, y, read),
                                                                 kept.result(), dy, dx);
    return {dx};
  });
}

}  // namespace depthstill
