#include "kernels/add.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor add(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype() && a.device() == b.device(),
        "add: expected two tensors of one shape, type and device, got ", a.shape(), " ", a.dtype(), " on ", a.device(),
        " and ", b.shape(), " ", b.dtype(), " on ", b.device());
  const OpRange range("add", [&] { return Work{0, 3 * bytes_of(a)}; });
  Tensor y = empty_like(a);
  visit(a.dtype(), [&]<class T>() { run(a.device(), cpu::add<T>, cuda::add<T>)(a.numel(), a, b, y); });
  return record("add", {a, b}, y, [](const Tensor& dy) -> Gradients { return {dy, dy}; });
}

}  // namespace depthstill
