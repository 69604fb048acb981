#include "kernels/linear.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

LinearShape shape_of(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const int rank = x.shape().rank();
  check(rank >= 1 && weight.shape().rank() == 2 && weight.size(1) == x.size(rank - 1) && x.numel() > 0 &&
            weight.numel() > 0,
        "linear: expected x (..., I) and weight (O, I), got ", x.shape(), " and ", weight.shape());
  check(weight.dtype() == DType::kFloat && weight.device() == x.device(), "linear: expected an fp32 weight on ",
        x.device(), ", got ", weight.dtype(), " on ", weight.device());
  check(!bias.defined() ||
            (bias.shape() == Shape{weight.size(0)} && bias.dtype() == DType::kFloat && bias.device() == x.device()),
        "linear: expected an fp32 bias (", weight.size(0), ") on ", x.device(), ", got ", bias.dtype(), " ",
        bias.shape(), " on ", bias.device());
  return {x.numel() / weight.size(1), weight.size(1), weight.size(0)};
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const LinearShape shape = shape_of(x, weight, bias);
  Shape y_shape;
  for (int d = 0; d + 1 < x.shape().rank(); ++d) y_shape.push_back(x.size(d));
  y_shape.push_back(shape.O);
  Tensor y = empty(y_shape, x.dtype(), x.device());
  const double flops = 2.0 * static_cast<double>(shape.rows) * static_cast<double>(shape.I * shape.O);
  const OpRange range("linear", [&] { return Work{flops, bytes_of(x, weight, y)}; });
  visit(x.dtype(), [&]<class T>() { run(x.device(), cpu::linear<T>, cuda::linear<T>)(shape, x, weight, bias, y); });
  const double x_bytes = bytes_of(x);
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad();
  const bool need_dbias = bias.defined() && bias.requires_grad();
  const Tensor saved_x = need_dweight ? x.detach() : Tensor();
  return record(
      "linear", {x, weight, bias}, y,
      [=, x_shape = x.shape(), dtype = x.dtype(), device = x.device()](const Tensor& dy) -> Gradients {
        const int products = need_dx + need_dweight;
        const OpRange op("linear", [&] { return Work{products * flops, products * (x_bytes + bytes_of(weight, dy))}; });
        Tensor dx = need_dx ? empty(x_shape, dtype, device) : Tensor();
        Tensor dweight = need_dweight ? empty_like(weight) : Tensor();
        Tensor dbias = need_dbias ? empty({shape.O}, DType::kFloat, device) : Tensor();
        visit(dtype, [&]<class T>() {
          run(device, cpu::linear_grad<T>, cuda::linear_grad<T>)(shape, saved_x, weight, dy, dx, dweight, dbias);
        });
        return {dx, dweight, dbias};
      });
}

}  // namespace depthstill
