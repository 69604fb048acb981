#include "kernels/resize_windows.h"

#include <algorithm>
#include <vector>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

// What the elements of a window that read pixel j of a row take of it; those of all pixels lie side by side.
struct Readers {
  std::vector<int> first;  // (S + 1): where pixel j's begin
  std::vector<int> element;
  std::vector<float> weight;

  Readers(const UpsampleAxis& axis, int start, int patch) {
    for (int j = 0; j < axis.in; ++j) {
      first.push_back(static_cast<int>(element.size()));
      const UpsampleAxis::Range range = window_readers(axis, j, start, patch);
      for (int o = range.first; o <= range.last; ++o) {
        element.push_back(o);
        weight.push_back(axis.weight(start + o, j));
      }
    }
    first.push_back(static_cast<int>(element.size()));
  }
};

}  // namespace

void resize_windows(Stream, const WindowsShape& shape, const float* x, const ResizeWindow* windows, float* y) {
  parallel_for(shape.K * shape.patch, 8, [&](int64_t r) {
    const ResizeWindow& window = windows[r / shape.patch];
    const UpsampleAxis axis(shape.size, window.side, false);
    const UpsampleAxis::Tap rows = axis.tap(window.row + static_cast<int>(r % shape.patch));
    const float* map = x + window.image * shape.pixels();
    const float *above = map + int64_t{rows.i0} * shape.size, *below = map + int64_t{rows.i1} * shape.size;
    float* to = y + r * shape.patch;
    for (int j = 0; j < shape.patch; ++j) {
      const UpsampleAxis::Tap tap = axis.tap(window.column + j);
      to[j] = window_value(above, below, rows, tap);
    }
  });
}

void resize_windows_grad(Stream, const WindowsShape& shape, const float* dy, const ResizeWindow* windows, float* dx) {
  std::vector<Readers> columns;
  for (int64_t k = 0; k < shape.K; ++k) {
    columns.emplace_back(UpsampleAxis(shape.size, windows[k].side, false), windows[k].column, shape.patch);
  }
  parallel_for(shape.N * shape.size, 4, [&](int64_t r) {
    const auto i = static_cast<int>(r % shape.size);
    float* to = dx + r * shape.size;
    std::fill_n(to, shape.size, 0.0f);
    for (int64_t k = 0; k < shape.K; ++k) {
      const ResizeWindow& window = windows[k];
      if (window.image != r / shape.size) continue;
      const UpsampleAxis axis(shape.size, window.side, false);
      const UpsampleAxis::Range rows = window_readers(axis, i, window.row, shape.patch);
      const Readers& reads = columns[static_cast<size_t>(k)];
      for (int p = rows.first; p <= rows.last; ++p) {
        const float* from = dy + k * shape.elements() + int64_t{p} * shape.patch;
        const float weight = axis.weight(window.row + p, i);
        for (int j = 0; j < shape.size; ++j) {
          const auto begin = static_cast<size_t>(reads.first[static_cast<size_t>(j)]);
          const auto end = static_cast<size_t>(reads.first[static_cast<size_t>(j) + 1]);
          float sum = 0.0f;
          for (size_t q = begin; q < end; ++q) sum += reads.weight[q] * from[reads.element[q]];
          to[j] += weight * sum;
        }
      }
    }
  });
}

}  // namespace depthstill::cpu
