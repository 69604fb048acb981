// y[k, i, j] = map[image_k] resized to side_k x side_k, at (row_k + i, column_k + j): windows of a map that is resized
// bilinearly on pixel centres with edges repeated (upsample_bilinear.h, without align_corners), of which only the
// windows are made. So a student's map of a region is seen as its teacher sees patches of the region (Distill Any
// Depth, Eq. 8).
//   x, dx (N, S, S)   y, dy (K, P, P)   windows (K, 4) int32 as ResizeWindow
// Windows are read on the device: they change under a fixed graph. Precondition: image in [0, N), 0 <= row, column,
// row + P <= side, column + P <= side <= kMaxUpsampleSize.
// Gradient, as a gather over each image's windows and their elements that read a pixel: no atomics.
// Bytes: 4 per element of y and about 4 per element of x that is read; the gradient the same. Bound: memory.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/upsample_bilinear.h"

namespace depthstill {

struct ResizeWindow {
  int32_t image, row, column, side;
};

struct WindowsShape {
  int64_t N = 0;  // maps
  int size = 0;   // S, a map's side
  int64_t K = 0;  // windows
  int patch = 0;  // P, a window's side

  DS_HOST_DEVICE int64_t pixels() const { return int64_t{size} * size; }
  DS_HOST_DEVICE int64_t elements() const { return int64_t{patch} * patch; }
};

// The elements of a window, along an axis on which it begins at `start`, that read pixel i; none if first > last.
DS_HOST_DEVICE inline UpsampleAxis::Range window_readers(const UpsampleAxis& axis, int i, int start, int patch) {
  const UpsampleAxis::Range all = axis.readers(i);
  const int first = all.first - start, last = all.last - start;
  return {first > 0 ? first : 0, last < patch - 1 ? last : patch - 1};
}

// Of the rows above and below an element, between two of their pixels each.
DS_HOST_DEVICE inline float window_value(const float* above, const float* below, const UpsampleAxis::Tap& rows,
                                         const UpsampleAxis::Tap& columns) {
  const float v = 1.0f - columns.w1, w = columns.w1;
  const float a = above[columns.i0] * v + above[columns.i1] * w, b = below[columns.i0] * v + below[columns.i1] * w;
  return a * (1.0f - rows.w1) + b * rows.w1;
}

namespace cpu {
void resize_windows(Stream stream, const WindowsShape& shape, const float* x, const ResizeWindow* windows, float* y);
void resize_windows_grad(Stream stream, const WindowsShape& shape, const float* dy, const ResizeWindow* windows,
                         float* dx);
}  // namespace cpu
namespace cuda {
void resize_windows(Stream stream, const WindowsShape& shape, const float* x, const ResizeWindow* windows, float* y);
void resize_windows_grad(Stream stream, const WindowsShape& shape, const float* dy, const ResizeWindow* windows,
                         float* dx);
}  // namespace cuda
}  // namespace depthstill
