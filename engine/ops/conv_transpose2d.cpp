#include "engine/ops.h"

namespace depthstill {

// With kernel = stride the outputs of different inputs do not overlap: one product gives all of them, block by block.
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int stride) {
  check(x.shape().rank() == 4 && weight.shape().rank() == 4 && weight.size(3) == x.size(3),
        "conv_transpose2d: expected x (N, H, W, I) and weight (R, S, O, I), got ", x.shape(), " and ", weight.shape());
  check(weight.size(0) == stride && weight.size(1) == stride,
        "conv_transpose2d: expected a kernel of the size of the stride ", stride, ", got ", weight.size(0), " x ",
        weight.size(1));
  const int64_t outputs = weight.numel() / weight.size(3);
  return depth_to_space(linear(x, reshape(weight, {outputs, weight.size(3)}), Tensor()), stride, bias);
}

}  // namespace depthstill
