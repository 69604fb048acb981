#include "kernels/masked_mean.h"

#include "engine/allocator.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

Tensor reduce(const char* op, bool with_mean, const Tensor& x, const Tensor& mask) {
  check(x.dtype() == DType::kFloat && x.numel() > 0, op, ": expected a non-empty fp32 tensor, got ", x.dtype(), " ",
        x.shape());
  check(!mask.defined() || (mask.shape() == x.shape() && mask.dtype() == DType::kUint8 && mask.device() == x.device()),
        op, ": expected a mask ", x.shape(), " of bytes on ", x.device(), ", got ",
        mask.defined() ? mask.shape() : Shape());
  const Device device = x.device();
  const int64_t n = x.numel();
  const OpRange range(op, [&] { return Work{0, bytes_of(x, mask)}; });
  Tensor result = empty({2}, DType::kFloat, device), y = empty({1}, DType::kFloat, device);
  run(device, cpu::masked_mean, cuda::masked_mean)(with_mean, n, x, mask, result);
  copy_bytes(y.raw(), device, result.raw(), device, sizeof(float));
  return record(op, {x}, y, [=, shape = x.shape()](const Tensor& dy) -> Gradients {
    Tensor dx = empty(shape, DType::kFloat, device);
    const OpRange backward(op, [&] { return Work{0, bytes_of(dx, mask)}; });
    run(device, cpu::masked_mean_grad, cuda::masked_mean_grad)(n, mask, result, dy, dx);
    return {dx};
  });
}

}  // namespace

Tensor depth_mask(const Tensor& depth, int64_t first_row, bool only_valid) {
  check(depth.shape().rank() == 3 && depth.numel() > 0 && depth.dtype() == DType::kFloat,
        "depth_mask: expected an fp32 depth map (N, H, W), got ", depth.dtype(), " ", depth.shape());
  check(first_row >= 0 && first_row < depth.size(1), "depth_mask: expected first_row within the ", depth.size(1),
        " rows, got ", first_row);
  Tensor mask = empty(depth.shape(), DType::kUint8, depth.device());
  const OpRange range("depth_mask", [&] { return Work{0, bytes_of(depth, mask)}; });
  run(depth.device(), cpu::depth_mask, cuda::depth_mask)({depth.size(0), depth.size(1), depth.size(2), first_row},
                                                         only_valid, depth, mask);
  return mask;
}

Tensor mean(const Tensor& x, const Tensor& mask) { return reduce("mean", true, x, mask); }
Tensor sum(const Tensor& x, const Tensor& mask) { return reduce("sum", false, x, mask); }

}  // namespace depthstill
