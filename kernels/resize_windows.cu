#include "kernels/core/launch.h"
#include "kernels/resize_windows.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// A thread to an element, grid (blocks of a window's elements, K): 4 bytes written; what it reads its neighbours read,
// too. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    resize_windows_kernel(WindowsShape shape, const float* x, const ResizeWindow* windows, float* y) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= shape.elements()) return;
  const ResizeWindow window = windows[blockIdx.y];
  const UpsampleAxis axis(shape.size, window.side, false);
  const UpsampleAxis::Tap rows = axis.tap(window.row + static_cast<int>(at / shape.patch));
  const UpsampleAxis::Tap columns = axis.tap(window.column + static_cast<int>(at % shape.patch));
  const float* map = x + window.image * shape.pixels();
  y[blockIdx.y * shape.elements() + at] =
      window_value(map + int64_t{rows.i0} * shape.size, map + int64_t{rows.i1} * shape.size, rows, columns);
}

// A thread to a pixel, grid (blocks of a map's pixels, N): it reads the elements of its image's windows that read it,
// as many as the resize has per pixel, which its neighbours share; 4 bytes written. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    resize_windows_grad_kernel(WindowsShape shape, const float* dy, const ResizeWindow* windows, float* dx) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= shape.pixels()) return;
  const auto i = static_cast<int>(at / shape.size), j = static_cast<int>(at % shape.size);
  float total = 0.0f;
  for (int64_t k = 0; k < shape.K; ++k) {
    const ResizeWindow window = windows[k];
    if (window.image != static_cast<int>(blockIdx.y)) continue;
    const UpsampleAxis axis(shape.size, window.side, false);
    const UpsampleAxis::Range rows = window_readers(axis, i, window.row, shape.patch);
    const UpsampleAxis::Range columns = window_readers(axis, j, window.column, shape.patch);
    for (int p = rows.first; p <= rows.last; ++p) {
      const float* from = dy + k * shape.elements() + int64_t{p} * shape.patch;
      float sum = 0.0f;
      for (int q = columns.first; q <= columns.last; ++q) sum += axis.weight(window.column + q, j) * from[q];
      total += axis.weight(window.row + p, i) * sum;
    }
  }
  dx[blockIdx.y * shape.pixels() + at] = total;
}

}  // namespace

void resize_windows(Stream stream, const WindowsShape& shape, const float* x, const ResizeWindow* windows, float* y) {
  const dim3 grid(blocks_for(shape.elements(), kThreads), static_cast<unsigned>(shape.K));
  launch(resize_windows_kernel, grid, kThreads, 0, stream, shape, x, windows, y);
}

void resize_windows_grad(Stream stream, const WindowsShape& shape, const float* dy, const ResizeWindow* windows,
                         float* dx) {
  const dim3 grid(blocks_for(shape.pixels(), kThreads), static_cast<unsigned>(shape.N));
  launch(resize_windows_grad_kernel, grid, kThreads, 0, stream, shape, dy, windows, dx);
}

}  // namespace depthstill::cuda
