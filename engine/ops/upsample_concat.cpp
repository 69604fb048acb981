// kernels/upsample_bilinear.h and kernels/rows.h, on slices of channels: each input is written straight into its
// channels of y, each gradient is read straight from those of dy. Elements moved, with X of x, U of x resized, T of tap
// and K of its rows in y: forward X + U + 2 K, backward X + U + K + T. With an op each to resize, crop and concatenate
// it would be X + 3 U + 4 K and X + 3 U + 3 K + T.
#include "engine/ops/upsample_shape.h"
#include "engine/profile.h"
#include "kernels/rows.h"

namespace depthstill {
namespace {

struct Join {
  bool resizes;
  UpsampleShape up;  // resize from x to its channels of y
  RowsShape x, tap;  // the same where nothing is resized, and from tap to its channels of y
};

Join join_shape(const Tensor& x, RowWindow in, const Tensor& tap, int64_t first_row, bool align_corners) {
  const Shape& st = tap.shape();
  check(st.rank() == 4 && x.shape().rank() == 4 && st[0] == x.size(0),
        "upsample_concat: expected two (N, H, W, C) maps of one N, got ", x.shape(), " and ", st);
  check(x.dtype() == tap.dtype() && x.device() == tap.device(), "upsample_concat: expected one type and device, got ",
        x.dtype(), " on ", x.device(), " and ", tap.dtype(), " on ", tap.device());
  Join join;
  join.up = upsample_shape("upsample_concat", x, in, {first_row, st[1]}, st[2], align_corners);
  join.up.y_channels = x.size(3) + st[3];
  join.resizes = in.height != st[1] || x.size(2) != st[2];
  const int64_t rows = st[1] - first_row, channels = join.up.y_channels;
  join.x = {st[0], x.size(1), rows, st[2], x.size(3), first_row - in.first_row, x.size(3), channels};
  join.tap = {st[0], st[1], rows, st[2], st[3], first_row, st[3], channels};
  return join;
}

// Turns s around, from y back to its input.
RowsShape reversed(const RowsShape& s) {
  return {s.batch, s.out_rows, s.in_rows, s.width, s.channels, -s.shift, s.y_channels, s.x_channels};
}

template <class T>
void join_maps(const Join& join, const Tensor& x, const Tensor& tap, const Tensor& y) {
  if (join.resizes) {
    run(y.device(), cpu::upsample_bilinear<T>, cuda::upsample_bilinear<T>)(join.up, x, y);
  } else {
    run(y.device(), cpu::shift_rows<T>, cuda::shift_rows<T>)(join.x, x, y);
  }
  run(y.device(), cpu::shift_rows<T>, cuda::shift_rows<T>)(join.tap, tap, y.data<T>() + join.up.C);
}

// Undefined gradients are not wanted. Those of rows that y does not have are 0.
template <class T>
void split_maps(const Join& join, const Tensor& dy, const Tensor& dx, const Tensor& dtap) {
  if (dx.defined() && join.resizes) {
    run(dy.device(), cpu::upsample_bilinear_grad<T>, cuda::upsample_bilinear_grad<T>)(join.up, dy, dx);
  } else if (dx.defined()) {
    run(dy.device(), cpu::shift_rows<T>, cuda::shift_rows<T>)(reversed(join.x), dy, dx);
  }
  if (dtap.defined()) {
    run(dy.device(), cpu::shift_rows<T>, cuda::shift_rows<T>)(reversed(join.tap), dy.data<T>() + join.up.C, dtap);
  }
}

}  // namespace

Tensor upsample_concat(const Tensor& x, RowWindow in, const Tensor& tap, int64_t first_row, bool align_corners) {
  const Join join = join_shape(x, in, tap, first_row, align_corners);
  Tensor y = empty({tap.size(0), join.tap.out_rows, tap.size(2), join.up.y_channels}, x.dtype(), x.device());
  const double tap_share = static_cast<double>(join.tap.channels) / static_cast<double>(join.up.y_channels);
  const OpRange range("upsample_concat", [&] { return Work{0, bytes_of(x, y) + tap_share * bytes_of(y)}; });
  visit(x.dtype(), [&]<class T>() { join_maps<T>(join, x, tap, y); });
  const Shape x_shape = x.requires_grad() ? x.shape() : Shape(),
              tap_shape = tap.requires_grad() ? tap.shape() : Shape();
  return record("upsample_concat", {x, tap}, y, [=](const Tensor& dy) -> Gradients {
    const auto wanted = [&](const Shape& shape) {
      return shape.rank() > 0 ? empty(shape, dy.dtype(), dy.device()) : Tensor();
    };
    const Tensor dx = wanted(x_shape), dtap = wanted(tap_shape);
    const OpRange op("upsample_concat", [&] { return Work{0, bytes_of(dx, dtap, dy)}; });
    visit(dy.dtype(), [&]<class T>() { split_maps<T>(join, dy, dx, dtap); });
    return {dx, dtap};
  });
}

}  // namespace depthstill
