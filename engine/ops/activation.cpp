#include "kernels/activation.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor activation(const Tensor& x, Activation kind) {
  if (kind == Activation::kNone) return x;
  const OpRange range("activation", [&] { return Work{0, 2 * bytes_of(x)}; });
  Tensor y = empty_like(x);
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::activation<T>, cuda::activation<T>)(x.numel(), kind, x, y); });
  return record("activation", {x}, y, [y, kind](const Tensor& dy) -> Gradients {
    const OpRange op("activation", [&] { return Work{0, 3 * bytes_of(y)}; });
    Tensor dx = dy.sole_owner() ? dy.detach() : empty_like(y);
    visit(y.dtype(), [&]<class T>() {
      run(y.device(), cpu::activation_grad<T>, cuda::activation_grad<T>)(y.numel(), kind, y, dy, dx);
    });
    return {dx};
  });
}

}  // namespace depthstill
