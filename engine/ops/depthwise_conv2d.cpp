#include "kernels/depthwise_conv2d.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor depthwise_conv2d(const Tensor& x, const Tensor& weight, int stride, int dilation) {
  check(weight.shape().rank() == 3, "depthwise_conv2d: expected a weight (K, K, C), got ", weight.shape());
  const int pad = dilation * static_cast<int>(weight.size(0) - 1) / 2;
  return depthwise_conv2d(x, weight, {stride, dilation, pad, pad});
}

Tensor depthwise_conv2d(const Tensor& x, const Tensor& weight, const DepthwiseConv2dOptions& o) {
  check(x.shape().rank() == 4 && x.numel() > 0, "depthwise_conv2d: expected a non-empty x (N, H, W, C), got ",
        x.shape());
  const int kernel = weight.shape().rank() == 3 && weight.size(0) == 5 ? 5 : 3;
  check(weight.shape() == Shape{kernel, kernel, x.size(3)} && weight.dtype() == DType::kFloat &&
            weight.device() == x.device(),
        "depthwise_conv2d: expected an fp32 weight (K, K, ", x.size(3), "), K = 3 or 5, on ", x.device(), ", got ",
        weight.dtype(), " ", weight.shape(), " on ", weight.device());
  check((o.stride == 1 || o.stride == 2) && o.dilation >= 1,
        "depthwise_conv2d: expected stride 1 or 2 and dilation of at least 1, got ", o.stride, " and ", o.dilation);
  check(o.pad_top >= 0 && o.pad_left >= 0 && o.pad_top <= o.dilation * (kernel - 1) &&
            o.pad_left <= o.dilation * (kernel - 1),
        "depthwise_conv2d: expected a padding of 0 to ", o.dilation * (kernel - 1), ", got ", o.pad_top, " and ",
        o.pad_left);
  const DepthwiseShape shape{x.size(0),  x.size(1), x.size(2),  x.size(3), o.stride,
                             o.dilation, o.pad_top, o.pad_left, kernel};
  Tensor y = empty({shape.N, shape.P(), shape.Q(), shape.C}, x.dtype(), x.device());
  const double flops = 2.0 * static_cast<double>(y.numel()) * kernel * kernel;
  const OpRange range("depthwise_conv2d", [&] { return Work{flops, bytes_of(x, weight, y)}; });
  visit(x.dtype(),
        [&]<class T>() { run(x.device(), cpu::depthwise_conv2d<T>, cuda::depthwise_conv2d<T>)(shape, x, weight, y); });
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad();
  return record("depthwise_conv2d", {x, weight}, y, [=](const Tensor& dy) -> Gradients {
    const int products = need_dx + need_dweight;
    const OpRange op("depthwise_conv2d", [&] { return Work{products * flops, products * bytes_of(x, weight, dy)}; });
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
