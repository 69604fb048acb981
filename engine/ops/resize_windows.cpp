#include "kernels/resize_windows.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

const ResizeWindow* windows_of(const Tensor& windows) { return static_cast<const ResizeWindow*>(windows.raw()); }

// On a device they are known there alone.
void check_windows(const WindowsShape& shape, const Tensor& windows) {
  if (windows.device() != Device::kCpu) return;
  for (int64_t k = 0; k < shape.K; ++k) {
    const ResizeWindow& at = windows_of(windows)[k];
    const int most = at.side - shape.patch;
    check(at.image >= 0 && at.image < shape.N && at.row >= 0 && at.row <= most && at.column >= 0 && at.column <= most &&
              at.side <= kMaxUpsampleSize,
          "resize_windows: expected a window of ", shape.patch, " pixels inside one of ", shape.N,
          " maps resized to at most ", kMaxUpsampleSize, ", got image ", at.image, ", row ", at.row, ", column ",
          at.column, ", side ", at.side);
  }
}

}  // namespace

Tensor resize_windows(const Tensor& x, const Tensor& windows, int64_t patch) {
  static_assert(sizeof(ResizeWindow) == 4 * sizeof(int32_t));
  check(x.shape().rank() == 3 && x.numel() > 0 && x.size(1) == x.size(2) && x.size(1) <= kMaxUpsampleSize &&
            x.dtype() == DType::kFloat,
        "resize_windows: expected fp32 maps (N, S, S), got ", x.dtype(), " ", x.shape());
  check(windows.shape().rank() == 2 && windows.size(0) > 0 && windows.size(1) == 4 &&
            windows.dtype() == DType::kInt32 && windows.device() == x.device(),
        "resize_windows: expected int32 windows (K, 4) on ", x.device(), ", got ", windows.dtype(), " ",
        windows.shape(), " on ", windows.device());
  check(patch >= 1 && patch <= kMaxUpsampleSize, "resize_windows: expected windows of 1 to ", kMaxUpsampleSize,
        " pixels, got ", patch);
  const WindowsShape shape{x.size(0), static_cast<int>(x.size(1)), windows.size(0), static_cast<int>(patch)};
  check_windows(shape, windows);
  Tensor y = empty({shape.K, patch, patch}, DType::kFloat, x.device());
  const OpRange range("resize_windows", [&] { return Work{0, 2 * bytes_of(y)}; });
  run(x.device(), cpu::resize_windows, cuda::resize_windows)(shape, x, windows_of(windows), y);
  return record("resize_windows", {x}, y, [=, before = x.shape()](const Tensor& dy) -> Gradients {
    Tensor dx = empty(before, DType::kFloat, dy.device());
    const OpRange backward("resize_windows", [&] { return Work{0, bytes_of(dx, dy)}; });
    run(dy.device(), cpu::resize_windows_grad, cuda::resize_windows_grad)(shape, dy, windows_of(windows), dx);
    return {dx};
  });
}

}  // namespace depthstill
