#include "engine/ops.h"

namespace depthstill {

Tensor reshape(const Tensor& x, const Shape& shape) {
  check(shape.numel() == x.numel(), "reshape: ", shape, " does not have the ", x.numel(), " elements of ", x.shape());
  return record("reshape", {x}, x.view(shape),
                [before = x.shape()](const Tensor& dy) -> Gradients { return {dy.view(before)}; });
}

}  // namespace depthstill
