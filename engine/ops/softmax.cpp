#include "kernels/softmax.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor softmax(const Tensor& x) {
  check(x.shape().rank() >= 1 && x.numel() > 0, "softmax: expected elements, got shape ", x.shape());
  const int64_t cols = x.size(x.shape().rank() - 1), rows = x.numel() / cols;
  const OpRange range("softmax", [&] { return Work{0, 2 * bytes_of(x)}; });
  Tensor y = empty_like(x);
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::softmax<T>, cuda::softmax<T>)(rows, cols, x, y); });
  return record("softmax", {x}, y, [y, rows, cols](const Tensor& dy) -> Gradients {
    const OpRange op("softmax", [&] { return Work{0, 3 * bytes_of(y)}; });
    Tensor dx = empty_like(y);
    visit(y.dtype(),
          [&]<class T>() { run(y.device(), cpu::softmax_grad<T>, cuda::softmax_grad<T>)(rows, cols, y, dy, dx); });
    return {dx};
  });
}

}  // namespace depthstill
