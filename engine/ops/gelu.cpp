#include "kernels/gelu.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor gelu(const Tensor& x, GeluKind kind) {
  const OpRange range("gelu", [&] { return Work{0, 2 * bytes_of(x)}; });
  Tensor y = empty_like(x);
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::gelu<T>, cuda::gelu<T>)(x.numel(), kind, x, y); });
  return record("gelu", {x}, y, [x = x.detach(), kind](const Tensor& dy) -> Gradients {
    const OpRange op("gelu", [&] { return Work{0, 3 * bytes_of(x)}; });
    Tensor dx = dy.sole_owner() ? dy.detach() : empty_like(x);
    visit(x.dtype(),
          [&]<class T>() { run(x.device(), cpu::gelu_grad<T>, cuda::gelu_grad<T>)(x.numel(), kind, x, dy, dx); });
    return {dx};
  });
}

}  // namespace depthstill
