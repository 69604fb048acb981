#include "kernels/depth_loss.h"

#include "engine/allocator.h"
#include "engine/ops_loss.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

Tensor depth_loss(const char* op, DepthLossKind kind, const Tensor& pred, const Tensor& target,
                  const DepthLossOptions& options) {
  const Device device = pred.device();
  check(pred.shape().rank() == 3 && pred.numel() > 0 && pred.dtype() == DType::kFloat, op,
        ": expected an fp32 depth map (N, H, W), got ", pred.dtype(), " ", pred.shape());
  check(target.shape() == pred.shape() && target.dtype() == DType::kFloat && target.device() == device, op,
        ": expected an fp32 target ", pred.shape(), " on ", device, ", got ", target.dtype(), " ", target.shape(),
        " on ", target.device());
  check(options.first_row >= 0 && options.first_row < pred.size(1), op, ": expected first_row within the ",
        pred.size(1), " rows, got ", options.first_row);
  const DepthMapShape shape{pred.size(0), pred.size(1), pred.size(2), options.first_row};
  const bool mask = options.mask;
  const OpRange range(op, [&] { return Work{0, bytes_of(pred, target)}; });
  Tensor result = empty({4}, DType::kFloat, device), loss = empty({1}, DType::kFloat, device);
  run(device, cpu::depth_loss, cuda::depth_loss)(kind, shape, mask, pred, target, result);
  copy_bytes(loss.raw(), device, result.raw(), device, sizeof(float));
  return record(op, {pred}, loss, [=, pred = pred.detach(), target = target.detach()](const Tensor& dy) -> Gradients {
    const OpRange backward(op, [&] { return Work{0, bytes_of(pred, target, pred)}; });
    Tensor dpred = empty_like(pred);
    run(device, cpu::depth_loss_grad, cuda::depth_loss_grad)(kind, shape, mask, pred, target, result, dy, dpred);
    return {dpred};
  });
}

}  // namespace

Tensor si_loss(const Tensor& pred, const Tensor& target, const DepthLossOptions& options) {
  return depth_loss("si_loss", DepthLossKind::kSi, pred, target, options);
}

Tensor mse_loss(const Tensor& pred, const Tensor& target, const DepthLossOptions& options) {
  return depth_loss("mse_loss", DepthLossKind::kMse, pred, target, options);
}

Tensor l1_loss(const Tensor& pred, const Tensor& target, const DepthLossOptions& options) {
  return depth_loss("l1_loss", DepthLossKind::kL1, pred, target, options);
}

}  // namespace depthstill
