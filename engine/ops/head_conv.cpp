#include "kernels/head_conv.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

void check_inputs(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation kind) {
  check(x.shape().rank() == 4 && x.numel() > 0, "head_conv: expected x (N, H, W, C), got ", x.shape());
  const Shape wanted{1, 1, 1, x.size(3)};
  check(weight.shape() == wanted && weight.dtype() == DType::kFloat && weight.device() == x.device(),
        "head_conv: expected an fp32 weight ", wanted, " on ", x.device(), ", got ", weight.dtype(), " ",
        weight.shape(), " on ", weight.device());
  check(bias.shape() == Shape{1} && bias.dtype() == DType::kFloat && bias.device() == x.device(),
        "head_conv: expected an fp32 bias (1) on ", x.device(), ", got ", bias.dtype(), " ", bias.shape(), " on ",
        bias.device());
  check(kind == Activation::kNone || kind == Activation::kRelu, "head_conv: expected no activation or ReLU");
}

}  // namespace

Tensor head_conv(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation kind) {
  check_inputs(x, weight, bias, kind);
  const int64_t channels = x.size(3), pixels = x.numel() / channels;
  const auto flops = [=] { return 2.0 * static_cast<double>(pixels * channels); };
  Tensor y = empty({x.size(0), x.size(1), x.size(2), 1}, DType::kFloat, x.device());
  const OpRange range("head_conv", [&] { return Work{flops(), bytes_of(x, y)}; });
  visit(x.dtype(), [&]<class T>() {
    run(x.device(), cpu::head_conv<T>, cuda::head_conv<T>)(pixels, channels, kind, x, weight, bias, y);
  });
  const bool need_dx = x.requires_grad(), need_dweight = weight.requires_grad(), need_dbias = bias.requires_grad();
  const Tensor saved_y = kind == Activation::kNone ? Tensor() : y;
  // Where x is the output of an activation, dx may be the gradient of what that one was applied to.
  const ActivationBelow below_x = activation_below(x);
  const auto gradient = [=, x = x.detach()](const Gradients& dys) -> Gradients {
    const Tensor& dy = dys[0];
    const bool through = below_x.kind == Activation::kRelu && below_x.wants_dz();
    const bool need_sums = through && below_x.sums.requires_grad();
    const OpRange op("head_conv", [&] {
      return Work{2 * flops(), bytes_of(x, dy, saved_y) + (need_dx ? bytes_of(x) : 0)};
    });
    Tensor dx = need_dx ? empty_like(x) : Tensor();
    Tensor dweight = need_dweight ? empty_like(weight) : Tensor(), dbias = need_dbias ? empty_like(bias) : Tensor();
    Tensor sums = need_sums ? empty({channels}, DType::kFloat, x.device()) : Tensor();
    visit(x.dtype(), [&]<class T>() {
      run(x.device(), cpu::head_conv_grad<T>, cuda::head_conv_grad<T>)(
          pixels, channels, kind, x, weight, saved_y, dy,
          {dx, dweight, dbias, through ? below_x.kind : Activation::kNone, sums});
    });
    return {through ? Tensor() : dx, dweight, dbias, through ? dx : Tensor(), sums};
  };
  return record("head_conv", {x, weight, bias, below_x.dz, below_x.sums}, std::vector<Tensor>{y}, gradient)[0];
}

}  // namespace depthstill
