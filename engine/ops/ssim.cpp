#include "kernels/ssim.h"

#include "engine/allocator.h"
#include "engine/ops_loss.h"
#include "engine/profile.h"

namespace depthstill {

Tensor ssim_loss(const Tensor& pred, const Tensor& target, const SsimOptions& options) {
  const Device device = pred.device();
  check(pred.shape().rank() == 3 && pred.numel() > 0 && pred.dtype() == DType::kFloat,
        "ssim_loss: expected an fp32 depth map (N, H, W), got ", pred.dtype(), " ", pred.shape());
  check(target.shape() == pred.shape() && target.dtype() == DType::kFloat && target.device() == device,
        "ssim_loss: expected an fp32 target ", pred.shape(), " on ", device, ", got ", target.dtype(), " ",
        target.shape(), " on ", target.device());
  check(options.first_row >= 0 && options.first_row < pred.size(1), "ssim_loss: expected first_row within the ",
        pred.size(1), " rows, got ", options.first_row);
  const DepthMapShape shape{pred.size(0), pred.size(1), pred.size(2), options.first_row};
  const bool need_gradient = grad_enabled() && pred.requires_grad();
  Tensor result = empty({2}, DType::kFloat, device), loss = empty({1}, DType::kFloat, device);
  Tensor gradient = need_gradient ? empty_like(pred) : Tensor();  // made in the same pass as the value
  const OpRange range("ssim_loss", [&] { return Work{0, bytes_of(pred, target, gradient)}; });
  run(device, cpu::ssim, cuda::ssim)(shape, options.mode, options.mask, pred, target, gradient, result);
  copy_bytes(loss.raw(), device, result.raw(), device, sizeof(float));
  return record("ssim_loss", {pred}, loss, [=](const Tensor& dy) mutable -> Gradients {
    const OpRange op("ssim_loss", [&] { return Work{0, 2 * bytes_of(gradient)}; });
    run(device, cpu::ssim_grad, cuda::ssim_grad)(gradient.numel(), result, dy, gradient);
    return {std::move(gradient)};
  });
}

}  // namespace depthstill
