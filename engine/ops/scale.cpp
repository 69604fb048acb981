#include "kernels/scale.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

Tensor scaled(const Tensor& x, float factor) {
  const OpRange range("scale", [&] { return Work{0, 2 * bytes_of(x)}; });
  Tensor y = empty_like(x);
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::scale<T>, cuda::scale<T>)(x.numel(), factor, x, y); });
  return y;
}

}  // namespace

Tensor scale(const Tensor& x, float factor) {
  return record("scale", {x}, scaled(x, factor),
                [factor](const Tensor& dy) -> Gradients { return {scaled(dy, factor)}; });
}

}  // namespace depthstill
