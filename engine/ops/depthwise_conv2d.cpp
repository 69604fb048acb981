#include "kernels/depthwise_conv2d.h"

#include "engine/ops.h"

namespace depthstill {

Tensor depthwise_conv2d(const Tensor& x, const Tensor& weight, int stride, int dilation) {
  check(x.shape().rank() == 4 && x.numel() > 0, "depthwise_conv2d: expected a non-empty x (N, H, W, C), got ",
        x.shape());
  check(weight.shape() == Shape{3, 3, x.size(3)} && weight.dtype() == DType::kFloat && weight.device() == x.device(),
        "depthwise_conv2d: expected an fp32 weight (3, 3, ", x.size(3), ") on ", x.device(), ", got ", weight.dtype(),
        " ", weight.shape(), " on ", weight.device());
  check((stride == 1 || stride == 2) && dilation >= 1,
        "depthwise_conv2d: expected stride 1 or 2 and dilation of at least 1, got ", stride, " and ", dilation);
  const DepthwiseShape shape{x.size(0), x.size(1), x.size(2), x.size(3), stride, dilation};
  Tensor y = empty({shape.N, shape.P(), shape.Q(), shape.C}, x.dtype(), x.device());
  visit(x.dtype(),
        [&]<class T>() { run(x.device(), cpu::depthwise_conv2d<T>, cuda::depthwise_conv2d<T>)(shape, x, weight, y); });
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad();
  return record("depthwise_conv2d", {x, weight}, y, [=](const Tensor& dy) -> Gradients {
    Tensor dx = need_dx ? empty_like(x) : Tensor();
    Tensor dweight = need_dweight ? empty_like(weight) : Tensor();
    visit(x.dtype(), [&]<class T>() {
      if (need_dweight) {
        run(x.device(), cpu::depthwise_conv2d_dweight<T>, cuda::depthwise_conv2d_dweight<T>)(shape, x, dy, dweight);
      }
      if (need_dx) run(x.device(), cpu::depthwise_conv2d_dx<T>, cuda::depthwise_conv2d_dx<T>)(shape, dy, weight, dx);
    });
    return {dx, dweight};
  });
}

}  // namespace depthstill
