// y[r] = (a[r], b[r]): joins two maps along the channels.
//   a, da (rows, a_channels)   b, db (rows, b_channels)   y, dy (rows, a_channels + b_channels)
// Gradient: da[r], db[r] = the two parts of dy[r]; a null da or db is not written.
// Bound: memory. Elements of y moved: 2, forward and in the gradient.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/stream.h"

namespace depthstill {
namespace cpu {
template <class T>
void concat(Stream stream, int64_t rows, int64_t a_channels, int64_t b_channels, const T* a, const T* b, T* y);
template <class T>
void concat_grad(Stream stream, int64_t rows, int64_t a_channels, int64_t b_channels, const T* dy, T* da, T* db);
}  // namespace cpu
namespace cuda {
template <class T>
void concat(Stream stream, int64_t rows, int64_t a_channels, int64_t b_channels, const T* a, const T* b, T* y);
template <class T>
void concat_grad(Stream stream, int64_t rows, int64_t a_channels, int64_t b_channels, const T* dy, T* da, T* db);
}  // namespace cuda
}  // namespace depthstill
