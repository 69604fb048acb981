#include "kernels/max_pool2d.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor max_pool2d(const Tensor& x, int kernel, int stride, int pad) {
  check(x.shape().rank() == 4 && x.numel() > 0, "max_pool2d: expected a non-empty x (N, H, W, C), got ", x.shape());
  check(
      kernel >= 1 && kernel <= 15 && stride >= 1 && pad >= 0 && 2 * pad <= kernel,
      "max_pool2d: expected a kernel of 1 to 15, a stride of at least 1 and a padding of at most half the kernel, got ",
      kernel, ", ", stride, " and ", pad);
  const MaxPoolShape shape{x.size(0), x.size(1), x.size(2), x.size(3), kernel, stride, pad};
  check(shape.H + 2 * pad >= kernel && shape.W + 2 * pad >= kernel, "max_pool2d: the kernel ", kernel, " with padding ",
        pad, " does not fit ", x.shape());
  const Shape out{shape.N, shape.P(), shape.Q(), shape.C};
  Tensor y = empty(out, x.dtype(), x.device()), index;
  if (grad_enabled() && x.requires_grad()) index = empty(out, DType::kUint8, x.device());
  const OpRange range("max_pool2d", [&] { return Work{0, bytes_of(x, y, index)}; });
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::max_pool2d<T>, cuda::max_pool2d<T>)(shape, x, y, index); });
  return record("max_pool2d", {x}, y, [shape, index, in = x.shape()](const Tensor& dy) -> Gradients {
    Tensor dx = empty(in, dy.dtype(), dy.device());
    const OpRange op("max_pool2d", [&] { return Work{0, bytes_of(dx, dy, index)}; });
    visit(dy.dtype(), [&]<class T>() {
      run(dy.device(), cpu::max_pool2d_grad<T>, cuda::max_pool2d_grad<T>)(shape, dy, index, dx);
    });
    return {dx};
  });
}

}  // namespace depthstill
