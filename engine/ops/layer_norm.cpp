#include "kernels/layer_norm.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  check(x.shape().rank() >= 1 && x.numel() > 0, "layer_norm: expected elements, got shape ", x.shape());
  const int64_t channels = x.size(x.shape().rank() - 1), rows = x.numel() / channels;
  for (const Tensor& parameter : {weight, bias}) {
    check(
        parameter.shape() == Shape{channels} && parameter.dtype() == DType::kFloat && parameter.device() == x.device(),
        "layer_norm: expected fp32 weight and bias (", channels, ") on ", x.device(), ", got ", parameter.dtype(), " ",
        parameter.shape(), " on ", parameter.device());
  }
  const OpRange range("layer_norm", [&] { return Work{0, 2 * bytes_of(x)}; });
  Tensor y = empty_like(x), mean = empty({rows}, DType::kFloat, x.device()), rstd = empty_like(mean);
  visit(x.dtype(), [&]<class T>() {
    run(x.device(), cpu::layer_norm<T>, cuda::layer_norm<T>)(rows, channels, eps, x, weight, bias, y, mean, rstd);
  });
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad(), need_dbias = bias.requires_grad();
  return record("layer_norm", {x, weight, bias}, y, [=, x = x.detach()](const Tensor& dy) -> Gradients {
    const int maps = x.device() == Device::kCpu ? 3 : 5;  // kernels/layer_norm.h
    const OpRange op("layer_norm", [&] { return Work{0, maps * bytes_of(x)}; });
    Tensor dx = !need_dx ? Tensor() : dy.sole_owner() ? dy.detach() : empty_like(x);
    Tensor dweight = need_dweight ? empty_like(weight) : Tensor();
    Tensor dbias = need_dbias ? empty_like(weight) : Tensor();
    visit(x.dtype(), [&]<class T>() {
      run(x.device(), cpu::layer_norm_grad<T>, cuda::layer_norm_grad<T>)(rows, channels, {x, weight, mean, rstd}, dy,
                                                                         dx, dweight, dbias);
    });
    return {dx, dweight, dbias};
  });
}

}  // namespace depthstill
