#include "kernels/upsample_bicubic.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor upsample_bicubic(const Tensor& x, int64_t out_height, int64_t out_width, double scale_height,
                        double scale_width) {
  constexpr int64_t kMaxSize = 1 << 20;
  check(x.shape().rank() == 4 && x.numel() > 0 && x.size(1) <= kMaxSize && x.size(2) <= kMaxSize,
        "upsample_bicubic: expected a non-empty x (N, H, W, C), got ", x.shape());
  check(out_height > 0 && out_width > 0 && out_height <= kMaxSize && out_width <= kMaxSize && scale_height >= 0.0 &&
            scale_width >= 0.0,
        "upsample_bicubic: expected a positive size and no negative scale, got ", out_height, " x ", out_width, " and ",
        scale_height, ", ", scale_width);
  const BicubicShape shape{x.size(0),
                           x.size(3),
                           {static_cast<int>(x.size(1)), static_cast<int>(out_height), scale_height},
                           {static_cast<int>(x.size(2)), static_cast<int>(out_width), scale_width}};
  Tensor y = empty({shape.N, out_height, out_width, shape.C}, x.dtype(), x.device());
  const OpRange range("upsample_bicubic", [&] { return Work{0, bytes_of(x, y)}; });
  visit(x.dtype(),
        [&]<class T>() { run(x.device(), cpu::upsample_bicubic<T>, cuda::upsample_bicubic<T>)(shape, x, y); });
  return record("upsample_bicubic", {x}, y, [shape, before = x.shape()](const Tensor& dy) -> Gradients {
    Tensor dx = empty(before, dy.dtype(), dy.device());
    const OpRange op("upsample_bicubic", [&] { return Work{0, bytes_of(dx, dy)}; });
    visit(dy.dtype(), [&]<class T>() {
      run(dy.device(), cpu::upsample_bicubic_grad<T>, cuda::upsample_bicubic_grad<T>)(shape, dy, dx);
    });
    return {dx};
  });
}

}  // namespace depthstill
