#include "kernels/rows.h"

#include <algorithm>

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

// y[:, r] = x[:, r + shift] or 0, with `rows` rows.
Tensor shifted(const char* op, const Tensor& x, int64_t rows, int64_t shift) {
  Shape shape;
  int64_t row_size = 1;
  for (int d = 0; d < x.shape().rank(); ++d) {
    shape.push_back(d == 1 ? rows : x.size(d));
    if (d > 1) row_size *= x.size(d);
  }
  Tensor y = empty(shape, x.dtype(), x.device());
  const OpRange range(op, [&] { return Work{0, bytes_of(y) + std::min(bytes_of(x), bytes_of(y))}; });
  visit(x.dtype(), [&]<class T>() {
    run(x.device(), cpu::shift_rows<T>, cuda::shift_rows<T>)({x.size(0), x.size(1), rows, 1, row_size, shift}, x, y);
  });
  return y;
}

Tensor record_shift(const char* name, const Tensor& x, int64_t rows, int64_t shift) {
  return record(name, {x}, shifted(name, x, rows, shift),
                [=, before = x.size(1)](const Tensor& dy) -> Gradients { return {shifted(name, dy, before, -shift)}; });
}

}  // namespace

Tensor crop_rows(const Tensor& x, int64_t first_row, int64_t rows) {
  check(x.shape().rank() >= 3 && first_row >= 0 && rows >= 0 && first_row + rows <= x.size(1),
        "crop_rows: expected rows of an (N, H, W[, C]) map, got rows ", first_row, " to ", first_row + rows, " of ",
        x.shape());
  return record_shift("crop_rows", x, rows, first_row);
}

Tensor pad_rows(const Tensor& x, int64_t top, int64_t bottom) {
  check(x.shape().rank() >= 3 && top >= 0 && bottom >= 0,
        "pad_rows: expected an (N, H, W[, C]) map and no negative padding, got ", x.shape(), ", ", top, " and ",
        bottom);
  return record_shift("pad_rows", x, top + x.size(1) + bottom, -top);
}

}  // namespace depthstill
