#include "engine/ops/upsample_shape.h"
#include "engine/profile.h"

namespace depthstill {

UpsampleShape upsample_shape(const char* op, const Tensor& x, RowWindow in, RowWindow out, int64_t out_width,
                             bool align_corners) {
  check(x.shape().rank() == 4, op, ": expected x (N, H, W, C), got ", x.shape());
  check(in.first_row >= 0 && in.first_row < in.height && x.size(1) == in.height - in.first_row, op,
        ": expected x with rows ", in.first_row, " to ", in.height, " of its map, got ", x.shape());
  check(out.first_row >= 0 && out.first_row < out.height && out_width > 0 && x.size(2) > 0, op,
        ": expected at least one output and one input, got rows ", out.first_row, " to ", out.height, " of width ",
        out_width, " from ", x.shape());
  for (const int64_t size : {in.height, x.size(2), out.height, out_width}) {
    check(size <= kMaxUpsampleSize, op, ": expected sizes up to ", kMaxUpsampleSize, ", got ", size);
  }
  const int64_t needed = upsample_first_input_row(out.first_row, in.height, out.height, align_corners);
  check(in.first_row <= needed, op, ": output row ", out.first_row, " of ", out.height, " reads input row ", needed,
        " of ", in.height, ", but x starts at row ", in.first_row);
  return {x.size(0),
          x.size(3),
          static_cast<int>(in.height),
          static_cast<int>(x.size(2)),
          static_cast<int>(out.height),
          static_cast<int>(out_width),
          static_cast<int>(in.first_row),
          static_cast<int>(out.first_row),
          align_corners};
}

Tensor upsample_bilinear(const Tensor& x, int64_t out_height, int64_t out_width, bool align_corners) {
  check(x.shape().rank() == 4, "upsample_bilinear: expected x (N, H, W, C), got ", x.shape());
  return upsample_bilinear(x, {0, x.size(1)}, {0, out_height}, out_width, align_corners);
}

Tensor upsample_bilinear(const Tensor& x, RowWindow in, RowWindow out, int64_t out_width, bool align_corners) {
  const UpsampleShape shape = upsample_shape("upsample_bilinear", x, in, out, out_width, align_corners);
  Tensor y = empty({shape.N, shape.out_rows(), out_width, shape.C}, x.dtype(), x.device());
  const OpRange range("upsample_bilinear", [&] { return Work{0, bytes_of(x, y)}; });
  visit(x.dtype(),
        [&]<class T>() { run(x.device(), cpu::upsample_bilinear<T>, cuda::upsample_bilinear<T>)(shape, x, y); });
  return record("upsample_bilinear", {x}, y, [shape, before = x.shape()](const Tensor& dy) -> Gradients {
    Tensor dx = empty(before, dy.dtype(), dy.device());
    const OpRange op("upsample_bilinear", [&] { return Work{0, bytes_of(dx, dy)}; });
    visit(dy.dtype(), [&]<class T>() {
      run(dy.device(), cpu::upsample_bilinear_grad<T>, cuda::upsample_bilinear_grad<T>)(shape, dy, dx);
    });
    return {dx};
  });
}

}  // namespace depthstill
