#include "kernels/layer_scale.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor layer_scale(const Tensor& x, const Tensor& branch, const Tensor& gamma) {
  check(x.shape() == branch.shape() && x.dtype() == branch.dtype() && x.device() == branch.device() &&
            x.shape().rank() >= 1 && x.numel() > 0,
        "layer_scale: expected x and branch of one shape, type and device, got ", x.shape(), " ", x.dtype(), " on ",
        x.device(), " and ", branch.shape(), " ", branch.dtype(), " on ", branch.device());
  const int64_t channels = x.size(x.shape().rank() - 1), rows = x.numel() / channels;
  check(gamma.shape() == Shape{channels} && gamma.dtype() == DType::kFloat && gamma.device() == x.device(),
        "layer_scale: expected an fp32 gamma (", channels, ") on ", x.device(), ", got ", gamma.dtype(), " ",
        gamma.shape(), " on ", gamma.device());
  const OpRange range("layer_scale", [&] { return Work{0, 3 * bytes_of(x)}; });
  Tensor y = empty_like(x);
  visit(x.dtype(), [&]<class T>() {
    run(x.device(), cpu::layer_scale<T>, cuda::layer_scale<T>)(rows, channels, x, branch, gamma, y);
  });
  const bool need_dx = x.requires_grad(), need_dbranch = branch.requires_grad(), need_dgamma = gamma.requires_grad();
  const Tensor saved_branch = need_dgamma ? branch.detach() : Tensor();
  return record("layer_scale", {x, branch, gamma}, y, [=](const Tensor& dy) -> Gradients {
    const OpRange op("layer_scale", [&] { return Work{0, 3 * bytes_of(dy)}; });
    Tensor dbranch = need_dbranch ? empty_like(dy) : Tensor();
    Tensor dgamma = need_dgamma ? empty_like(gamma) : Tensor();
    visit(dy.dtype(), [&]<class T>() {
      run(dy.device(), cpu::layer_scale_grad<T>, cuda::layer_scale_grad<T>)(rows, channels, saved_branch, gamma, dy,
                                                                            dbranch, dgamma);
    });
    return {need_dx ? dy : Tensor(), dbranch, dgamma};
  });
}

}  // namespace depthstill
