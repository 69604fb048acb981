// y[n, r] = x[n, r + shift] where that row exists, else 0.
//   x (batch, in_rows, row_size)   y (batch, out_rows, row_size)
// Cropping the rows above `first` is shift = first, padding `top` rows is shift = -top; the gradient of either is the
// same function with the sizes swapped and -shift.
// Bound: memory. Elements moved: what is copied twice, zeros once.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/stream.h"

namespace depthstill {
namespace cpu {
template <class T>
void shift_rows(Stream stream, int64_t batch, int64_t in_rows, int64_t out_rows, int64_t row_size, int64_t shift,
                const T* x, T* y);
}
namespace cuda {
template <class T>
void shift_rows(Stream stream, int64_t batch, int64_t in_rows, int64_t out_rows, int64_t row_size, int64_t shift,
                const T* x, T* y);
}
}  // namespace depthstill
