#include "kernels/gelu.h"

#include "engine/ops.h"

namespace depthstill {

Tensor gelu(const Tensor& x, GeluKind kind) {
  Tensor y = empty_like(x);
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::gelu<T>, cuda::gelu<T>)(x.numel(), kind, x, y); });
  return record("gelu", {x}, y, [x = x.detach(), kind](const Tensor& dy) -> Gradients {
    Tensor dx = dy.sole_owner() ? dy.detach() : empty_like(x);
    visit(x.dtype(),
          [&]<class T>() { run(x.device(), cpu::gelu_grad<T>, cuda::gelu_grad<T>)(x.numel(), kind, x, dy, dx); });
    return {dx};
  });
}

}  // namespace depthstill
