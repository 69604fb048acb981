#include "kernels/swiglu.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor swiglu(const Tensor& x) {
  const int rank = x.shape().rank();
  check(rank >= 1 && x.numel() > 0 && x.size(rank - 1) % 2 == 0,
        "swiglu: expected elements and an even last dimension, got shape ", x.shape());
  const int64_t channels = x.size(rank - 1) / 2, rows = x.numel() / (2 * channels);
  Shape shape;
  for (int d = 0; d + 1 < rank; ++d) shape.push_back(x.size(d));
  shape.push_back(channels);
  Tensor y = empty(shape, x.dtype(), x.device());
  const OpRange range("swiglu", [&] { return Work{0, bytes_of(x, y)}; });
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::swiglu<T>, cuda::swiglu<T>)(rows, channels, x, y); });
  return record("swiglu", {x}, y, [=, x = x.detach()](const Tensor& dy) -> Gradients {
    const OpRange op("swiglu", [&] { return Work{0, bytes_of(x, dy, x)}; });
    Tensor dx = empty_like(x);
    visit(x.dtype(),
          [&]<class T>() { run(x.device(), cpu::swiglu_grad<T>, cuda::swiglu_grad<T>)(rows, channels, x, dy, dx); });
    return {dx};
  });
}

}  // namespace depthstill
