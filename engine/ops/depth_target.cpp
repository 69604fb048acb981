#include "kernels/depth_target.h"

#include "engine/allocator.h"
#include "engine/ops_loss.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

TargetTally* tally_in(const Tensor& tally, Device device) {
  if (!tally.defined()) return nullptr;
  check(tally.dtype() == DType::kInt64 && tally.numel() == kTallyElements && tally.device() == device,
        "depth_target: expected a tally of ", kTallyElements, " int64 on ", device, ", got ", tally.dtype(), " ",
        tally.shape(), " on ", tally.device());
  return static_cast<TargetTally*>(tally.raw());
}

}  // namespace

Tensor depth_target(const Tensor& target, DepthRange range, const DepthTargetOptions& options, const Tensor& tally) {
  check(target.shape().rank() == 3 && target.numel() > 0 && target.dtype() == DType::kFloat,
        "depth_target: expected an fp32 depth map (N, H, W), got ", target.dtype(), " ", target.shape());
  const int64_t rows = options.rows > 0 ? options.rows : target.size(1);
  check(rows <= target.size(1) && options.first_row >= 0 && options.first_row < rows,
        "depth_target: expected rows within the ", target.size(1), " and first_row among them, got ", options.rows,
        " and ", options.first_row);
  const Device device = target.device();
  const DepthTargetShape shape{target.size(0), target.size(1), target.size(2), rows, options.first_row};
  Tensor y = empty({shape.N, rows, shape.W}, DType::kFloat, device);
  const OpRange range_of_op("depth_target", [&] { return Work{0, 2 * bytes_of(y)}; });
  run(device, cpu::depth_target, cuda::depth_target)(shape, range, options.mode, target, y, tally_in(tally, device));
  return y;
}

TargetTally read_tally(const Tensor& tally) {
  TargetTally host;
  copy_bytes(&host, Device::kCpu, tally.raw(), tally.device(), sizeof(host));
  synchronize(tally.device());
  return host;
}

}  // namespace depthstill
