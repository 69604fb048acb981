#include "kernels/simt/libraries/product.h"

#include <algorithm>

#include "kernels/core/parallel.h"

namespace depthstill::simt {
namespace {

constexpr int kRows = 4;  // together with 32 columns, what vector registers hold

template <int kColumns>
void multiply_add_block(const Product& s, int64_t row, int64_t column) {
  float sums[kRows][kColumns] = {};
  const float* a[kRows];
  for (int i = 0; i < kRows; ++i) a[i] = s.a + std::min(row + i, s.rows - 1) * s.a_row;
  for (int64_t k = 0; k < s.inner; ++k) {
    const float* b = s.b + k * s.b_inner + column;
    for (int i = 0; i < kRows; ++i) {
      const float factor = a[i][k * s.a_inner];
      for (int j = 0; j < kColumns; ++j) sums[i][j] += factor * b[j];
    }
  }
  const int64_t rows = std::min<int64_t>(kRows, s.rows - row);
  for (int64_t i = 0; i < rows; ++i) {
    float* c = s.c + (row + i) * s.c_row + column;
    for (int j = 0; j < kColumns; ++j) c[j] += sums[i][j];
  }
}

// The filter's tap number `tap` lies on the map along one axis at `from + i * stride` for output i, which is inside for
// begin <= i < end.
struct TapRange {
  int64_t begin = 0, end = 0, from = 0;
};
TapRange tap_range(int64_t tap, int64_t dilation, int64_t pad, int64_t stride, int64_t inputs, int64_t outputs) {
  const int64_t from = tap * dilation - pad;
  const int64_t begin = from >= 0 ? 0 : (-from + stride - 1) / stride;
  const int64_t end = from >= inputs ? 0 : (inputs - from + stride - 1) / stride;
  return {std::min(begin, outputs), std::min(end, outputs), from};
}
TapRange row_range(const Convolution2d& s, int64_t r) {
  return tap_range(s.flipped ? s.R - 1 - r : r, s.dilation_h, s.pad_h, s.stride_h, s.H, s.P);
}
TapRange column_range(const Convolution2d& s, int64_t tap) {
  return tap_range(s.flipped ? s.S - 1 - tap : tap, s.dilation_w, s.pad_w, s.stride_w, s.W, s.Q);
}

// (O, R, S, C) as (R, S, C, O).
Values filters_inside_out(const Convolution2d& s, const Values& weight) {
  Values turned(weight.size());
  const int64_t taps = s.R * s.S * s.C;
  for (int64_t o = 0; o < s.O; ++o) {
    for (int64_t t = 0; t < taps; ++t)
      turned[static_cast<size_t>(t * s.O + o)] = weight[static_cast<size_t>(o * taps + t)];
  }
  return turned;
}

Values zeros(int64_t count) { return Values(static_cast<size_t>(count), 0.0f); }

}  // namespace

void multiply_add(const Product& s) {
  for (int64_t row = 0; row < s.rows; row += kRows) {
    int64_t column = 0;
    for (; column + 32 <= s.columns; column += 32) multiply_add_block<32>(s, row, column);
    for (; column + 8 <= s.columns; column += 8) multiply_add_block<8>(s, row, column);
    for (; column < s.columns; ++column) multiply_add_block<1>(s, row, column);
  }
}

Values convolve(const Convolution2d& s, const Values& x, const Values& weight) {
  Values y = zeros(s.N * s.P * s.Q * s.O);
  const Values filters = filters_inside_out(s, weight);
  parallel_for(s.N * s.P, 1, [&](int64_t row) {
    const int64_t n = row / s.P, p = row % s.P;
    for (int64_t r = 0; r < s.R; ++r) {
      const TapRange rows = row_range(s, r);
      if (p < rows.begin || p >= rows.end) continue;
      const float* x_row = x.data() + (n * s.H + rows.from + p * s.stride_h) * s.W * s.C;
      for (int64_t tap = 0; tap < s.S; ++tap) {
        const TapRange columns = column_range(s, tap);
        if (columns.begin >= columns.end) continue;
        multiply_add({.rows = columns.end - columns.begin,
                      .columns = s.O,
                      .inner = s.C,
                      .a = x_row + (columns.from + columns.begin * s.stride_w) * s.C,
                      .a_row = s.stride_w * s.C,
                      .a_inner = 1,
                      .b = filters.data() + (r * s.S + tap) * s.C * s.O,
                      .b_inner = s.O,
                      .c = y.data() + (row * s.Q + columns.begin) * s.O,
                      .c_row = s.O});
      }
    }
  });
  return y;
}

Values convolve_data_gradient(const Convolution2d& s, const Values& dy, const Values& weight) {
  Values dx = zeros(s.N * s.H * s.W * s.C);
  parallel_for(s.N * s.H, 1, [&](int64_t row) {
    const int64_t n = row / s.H, h = row % s.H;
    for (int64_t r = 0; r < s.R; ++r) {
      const TapRange rows = row_range(s, r);
      const int64_t p = (h - rows.from) / s.stride_h;
      if (h < rows.from || (h - rows.from) % s.stride_h != 0 || p < rows.begin || p >= rows.end) continue;
      for (int64_t tap = 0; tap < s.S; ++tap) {
        const TapRange columns = column_range(s, tap);
        if (columns.begin >= columns.end) continue;
        multiply_add({.rows = columns.end - columns.begin,
                      .columns = s.C,
                      .inner = s.O,
                      .a = dy.data() + ((n * s.P + p) * s.Q + columns.begin) * s.O,
                      .a_row = s.O,
                      .a_inner = 1,
                      .b = weight.data() + (r * s.S + tap) * s.C,
                      .b_inner = s.R * s.S * s.C,
                      .c = dx.data() + (row * s.W + columns.from + columns.begin * s.stride_w) * s.C,
                      .c_row = s.stride_w * s.C});
      }
    }
  });
  return dx;
}

Values convolve_weight_gradient(const Convolution2d& s, const Values& x, const Values& dy) {
  Values dweight = zeros(s.O * s.R * s.S * s.C);
  constexpr int64_t kFilters = 16;  // filters that one part of the work is about
  const int64_t groups = (s.O + kFilters - 1) / kFilters;
  parallel_for(s.R * s.S * groups, 1, [&](int64_t part) {
    const int64_t r = part / groups / s.S, tap = part / groups % s.S, o = part % groups * kFilters;
    const TapRange rows = row_range(s, r), columns = column_range(s, tap);
    if (columns.begin >= columns.end) return;
    for (int64_t n = 0; n < s.N; ++n) {
      for (int64_t p = rows.begin; p < rows.end; ++p) {
        const int64_t h = rows.from + p * s.stride_h, w = columns.from + columns.begin * s.stride_w;
        multiply_add({.rows = std::min(kFilters, s.O - o),
                      .columns = s.C,
                      .inner = columns.end - columns.begin,
                      .a = dy.data() + ((n * s.P + p) * s.Q + columns.begin) * s.O + o,
                      .a_row = 1,
                      .a_inner = s.O,
                      .b = x.data() + ((n * s.H + h) * s.W + w) * s.C,
                      .b_inner = s.stride_w * s.C,
                      .c = dweight.data() + ((o * s.R + r) * s.S + tap) * s.C,
                      .c_row = s.R * s.S * s.C});
      }
    }
  });
  return dweight;
}

}  // namespace depthstill::simt
