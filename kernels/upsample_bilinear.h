// y[n,p,q,c] = sum over 2 x 2 taps of wy * wx * x[n,i,j,c]: bilinear resize of an (N, in_height, in_width, C) map to
// (N, out_height, out_width, C). Per axis, output o reads position s = i0 + w1 between i0 and i1 = min(i0 + 1, in - 1):
//   align_corners   s = o (in - 1) / (out - 1)             (0 if out is 1)
//   otherwise       s = max(0, (o + 1/2) in / out - 1/2)
// Gradient, as a gather over the outputs that read input (i, j): dx[n,i,j,c] = sum of wy * wx * dy[n,p,q,c].
// Row windows: x and dx hold rows [in_first_row, in_height) of the map, y and dy rows [out_first_row, out_height).
// The rows that y reads must be stored: in_first_row <= upsample_first_input_row(out_first_row, ...).
// Channel slices: y and dy may be C neighbouring channels of a map of y_channels; the pointers are to their first one.
// Bound: memory. x and y once, in the gradient dx and dy.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

struct UpsampleShape {
  int64_t N = 0, C = 0;
  int in_height = 0, in_width = 0, out_height = 0, out_width = 0;  // whole maps, at most kMaxUpsampleSize
  int in_first_row = 0, out_first_row = 0;
  bool align_corners = true;
  int64_t y_channels = C;

  DS_HOST_DEVICE int in_rows() const { return in_height - in_first_row; }
  DS_HOST_DEVICE int out_rows() const { return out_height - out_first_row; }
};

inline constexpr int kMaxUpsampleSize = 16384;  // keeps the integer position arithmetic within 31 bits

// One axis of the resize. Positions are counted in steps of 1 / unit, so every device picks the same taps.
struct UpsampleAxis {
  int in, out;
  bool align_corners;
  int unit;
  float inverse_unit;

  DS_HOST_DEVICE UpsampleAxis(int in_size, int out_size, bool align)
      : in(in_size),
        out(out_size),
        align_corners(align),
        unit(align ? (out > 1 ? out - 1 : 1) : 2 * out),
        inverse_unit(1.0f / static_cast<float>(unit)) {}

  DS_HOST_DEVICE int position(int o) const {
    const int s = align_corners ? o * (in - 1) : (2 * o + 1) * in - out;
    return s > 0 ? s : 0;
  }

  struct Tap {
    int i0, i1;
    float w1;  // weight of i1; i0 has 1 - w1
  };
  DS_HOST_DEVICE Tap tap(int o) const {
    const int s = position(o), i0 = s / unit;
    return {i0, i0 + 1 < in ? i0 + 1 : in - 1, static_cast<float>(s - i0 * unit) * inverse_unit};
  }

  // First and last output that read input i, all with a weight above 0; first > last if there is none. They are the o
  // with (i - 1) unit < position < (i + 1) unit; the inputs at the ends are read by all outputs beyond them too. At x2
  // there are at most four.
  struct Range {
    int first, last;
  };
  DS_HOST_DEVICE Range readers(int i) const {
    int first = 0, last = out - 1;
    if (align_corners) {
      if (i > 0) first = (i - 1) * unit / (in - 1) + 1;
      if (i < in - 1) last = ((i + 1) * unit - 1) / (in - 1);
    } else {  // both quotients are of numbers above 0, which rounds them down
      if (i > 0) first = ((2 * i - 1) * out + in) / (2 * in);
      if (i < in - 1) last = ((2 * i + 3) * out + in - 1) / (2 * in) - 1;
    }
    return {first, last < out - 1 ? last : out - 1};
  }

  // Output o reads input i with this weight: max(0, 1 - |s - i|), with s at most in - 1.
  DS_HOST_DEVICE float weight(int o, int i) const {
    const int end = (in - 1) * unit, s = position(o) < end ? position(o) : end;
    const int distance = s > i * unit ? s - i * unit : i * unit - s;
    return distance < unit ? static_cast<float>(unit - distance) * inverse_unit : 0.0f;
  }
};

// The first input row that output rows [out_first_row, out_height) read.
inline int64_t upsample_first_input_row(int64_t out_first_row, int64_t in_height, int64_t out_height,
                                        bool align_corners) {
  return UpsampleAxis(static_cast<int>(in_height), static_cast<int>(out_height), align_corners)
      .tap(static_cast<int>(out_first_row))
      .i0;
}

namespace cpu {
template <class T>
void upsample_bilinear(Stream stream, const UpsampleShape& shape, const T* x, T* y);
template <class T>
void upsample_bilinear_grad(Stream stream, const UpsampleShape& shape, const T* dy, T* dx);
}  // namespace cpu
namespace cuda {
template <class T>
void upsample_bilinear(Stream stream, const UpsampleShape& shape, const T* x, T* y);
template <class T>
void upsample_bilinear_grad(Stream stream, const UpsampleShape& shape, const T* dy, T* dx);
}  // namespace cuda
}  // namespace depthstill
