#include "kernels/conv2d.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

Conv2dShape shape_of(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& o) {
  check(x.shape().rank() == 4 && weight.shape().rank() == 4 && weight.size(3) == x.size(3),
        "conv2d: expected x (N, H, W, C) and weight (O, R, S, C), got ", x.shape(), " and ", weight.shape());
  check(weight.dtype() == DType::kFloat && weight.device() == x.device(), "conv2d: expected an fp32 weight on ",
        x.device(), ", got ", weight.dtype(), " on ", weight.device());
  check(!bias.defined() ||
            (bias.shape() == Shape{weight.size(0)} && bias.dtype() == DType::kFloat && bias.device() == x.device()),
        "conv2d: expected an fp32 bias (", weight.size(0), ") on ", x.device(), ", got ", bias.dtype(), " ",
        bias.shape(), " on ", bias.device());
  check(o.stride >= 1 && o.dilation >= 1 && o.pad_top >= 0 && o.pad_bottom >= 0 && o.pad_left >= 0 && o.pad_right >= 0,
        "conv2d: expected stride and dilation of at least 1 and no negative padding, got stride ", o.stride,
        ", dilation ", o.dilation, ", padding ", o.pad_top, ", ", o.pad_bottom, ", ", o.pad_left, ", ", o.pad_right);
  const Conv2dShape shape{x.size(0),      x.size(1),      x.size(2),  x.size(3),  weight.size(0),
                          weight.size(1), weight.size(2), o.stride,   o.dilation, o.pad_top,
                          o.pad_bottom,   o.pad_left,     o.pad_right};
  check(shape.H + o.pad_top + o.pad_bottom > o.dilation * (shape.R - 1) &&
            shape.W + o.pad_left + o.pad_right > o.dilation * (shape.S - 1),
        "conv2d: the filter ", weight.shape(), " with dilation ", o.dilation, " does not fit the padded image ",
        x.shape());
  return shape;
}

double flops_of(const Conv2dShape& s) {
  return 2.0 * static_cast<double>(s.N * s.P() * s.Q()) * static_cast<double>(s.O * s.R * s.S * s.C);
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  const Conv2dShape shape = shape_of(x, weight, bias, options);
  const Activation act = options.activation;
  Tensor y = empty({shape.N, shape.P(), shape.Q(), shape.O}, x.dtype(), x.device());
  const double flops = flops_of(shape);
  const OpRange range("conv2d", [&] { return Work{flops, bytes_of(x, weight, y)}; });
  visit(x.dtype(),
        [&]<class T>() { run(x.device(), cpu::conv2d<T>, cuda::conv2d<T>)(shape, act, x, weight, bias, y); });
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad();
  const bool need_dbias = bias.defined() && bias.requires_grad();
  const Tensor saved_y = act == Activation::kNone ? Tensor() : y;
  return record("conv2d", {x, weight, bias}, y, [=](const Tensor& dy) -> Gradients {
    // Each product is a pass of its own over dz; the activation's slope is one more, in place.
    const OpRange op("conv2d", [&] {
      return Work{(need_dx + need_dweight) * flops, (saved_y.defined() ? 3 : 0) * bytes_of(dy) +
                                                        (need_dx ? bytes_of(dy, weight, x) : 0) +
                                                        (need_dweight ? bytes_of(dy, weight, x) : 0)};
    });
    const Tensor dz = act == Activation::kNone ? dy : writable(dy);  // overwritten with dy * act'(y)
    Tensor dx = need_dx ? empty_like(x) : Tensor();
    Tensor dweight = need_dweight ? empty_like(weight) : Tensor();
    Tensor dbias = need_dbias ? empty({shape.O}, DType::kFloat, x.device()) : Tensor();
    visit(x.dtype(), [&]<class T>() {
      run(x.device(), cpu::conv2d_grad<T>, cuda::conv2d_grad<T>)(shape, act, x, weight, saved_y, dz, dx, dweight,
                                                                 dbias);
    });
    return {dx, dweight, dbias};
  });
}

}  // namespace depthstill
