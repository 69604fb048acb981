#include "kernels/screen_labels.h"

#include "engine/allocator.h"
#include "engine/ops_loss.h"
#include "engine/profile.h"

namespace depthstill {

Tensor screen_labels(const Tensor& maps, const Tensor& patches, const Tensor& tally) {
  check(maps.shape().rank() == 3 && maps.numel() > 0 && maps.dtype() == DType::kFloat,
        "screen_labels: expected fp32 maps (N, H, W), got ", maps.dtype(), " ", maps.shape());
  const int64_t N = maps.size(0);
  const Device device = maps.device();
  check(!patches.defined() ||
            (patches.dtype() == DType::kFloat && patches.size(0) % N == 0 && patches.device() == device),
        "screen_labels: expected fp32 patches of ", N, " images on ", device, ", got other ones");
  check(tally.defined() && tally.dtype() == DType::kInt64 && tally.numel() == kLabelTallyElements &&
            tally.device() == device,
        "screen_labels: expected a tally of ", kLabelTallyElements, " int64 on ", device, ", got another tensor");
  const Tensor faults = empty({N}, DType::kInt32, device);
  const OpRange range("screen_labels", [&] { return Work{0, 2 * bytes_of(maps) + bytes_of(patches)}; });
  run(device, cpu::screen_labels, cuda::screen_labels)(N, maps.numel() / N, patches.defined() ? patches.numel() / N : 0,
                                                       maps, patches, static_cast<LabelFault*>(faults.raw()),
                                                       static_cast<LabelTally*>(tally.raw()));
  return faults;
}

LabelTally read_label_tally(const Tensor& tally) {
  LabelTally host;
  copy_bytes(&host, Device::kCpu, tally.raw(), tally.device(), sizeof(host));
  synchronize(tally.device());
  return host;
}

}  // namespace depthstill
