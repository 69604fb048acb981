// y[n, r, w, c] = x[n, r + shift, w, c] where that row exists, else 0.
//   x (batch, in_rows, width, channels of x_channels)   y (batch, out_rows, width, channels of y_channels)
// Cropping the rows above `first` is shift = first, padding `top` rows is shift = -top; the gradient of either is the
// same function with x and y swapped and -shift. x and y may be channel slices: `channels` neighbouring channels of
// maps of x_channels and y_channels; the pointers are to their first one. Bound: memory. Elements moved: what is copied
// twice, zeros once.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

struct RowsShape {
  int64_t batch = 0, in_rows = 0, out_rows = 0, width = 0, channels = 0, shift = 0;
  int64_t x_channels = channels, y_channels = channels;
};

namespace cpu {
template <class T>
void shift_rows(Stream stream, const RowsShape& shape, const T* x, T* y);
}
namespace cuda {
template <class T>
void shift_rows(Stream stream, const RowsShape& shape, const T* x, T* y);
}
}  // namespace depthstill
