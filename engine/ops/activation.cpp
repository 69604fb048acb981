#include "kernels/activation.h"

#include "engine/ops.h"
#include "engine/profile.h"
#include "kernels/add.h"

namespace depthstill {

Tensor activation(const Tensor& x, Activation kind) {
  if (kind == Activation::kNone) return x;
  const OpRange range("activation", [&] { return Work{0, 2 * bytes_of(x)}; });
  Tensor y = empty_like(x);
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::activation<T>, cuda::activation<T>)(x.numel(), kind, x, y); });
  const auto gradient = [y, kind](const Gradients& dys) -> Gradients {
    const Tensor &dy = dys[0], &dz = dys[1], &second = dys[3];
    if (!dy.defined()) return {dz};
    const OpRange op("activation", [&] {
      return Work{0, 3 * bytes_of(y) + bytes_of(second) + (dz.defined() ? 3 * bytes_of(y) : 0)};
    });
    Tensor dx = dy.sole_owner() ? dy.detach() : second.sole_owner() ? second.detach() : empty_like(y);
    visit(y.dtype(), [&]<class T>() {
      run(y.device(), cpu::activation_grad<T>, cuda::activation_grad<T>)(y.numel(), kind, y, dy, second, dx);
      if (dz.defined()) run(y.device(), cpu::add<T>, cuda::add<T>)(y.numel(), dx, dz, dx);
    });
    return {dx};
  };
  constexpr bool kSums = false, kTakesTwo = true;
  return record_activated("activation", {x}, y, kind, kSums, gradient, kTakesTwo);
}

}  // namespace depthstill
