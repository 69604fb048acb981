#include "kernels/softmax.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {
int64_t grain_rows(int64_t cols) { return 2048 / std::max<int64_t>(cols, 1) + 1; }
}  // namespace

template <class T>
void softmax(Stream, int64_t rows, int64_t cols, const T* x, T* y) {
  parallel_ranges(rows, grain_rows(cols), [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; ++r) {
      float max = -INFINITY, sum = 0.0f;
      for (int64_t i = 0; i < cols; ++i) {
        row[static_cast<size_t>(i)] = static_cast<float>(x[r * cols + i]);
        max = std::max(max, row[static_cast<size_t>(i)]);
      }
      for (float& value : row) {
        value = std::exp(value - max);
        sum += value;
      }
      const float inverse = 1.0f / sum;
      for (int64_t i = 0; i < cols; ++i) y[r * cols + i] = static_cast<T>(row[static_cast<size_t>(i)] * inverse);
    }
  });
}

template <class T>
void softmax_grad(Stream, int64_t rows, int64_t cols, const T* y, const T* dy, T* dx) {
  parallel_for(rows, grain_rows(cols), [&](int64_t r) {
    const T *y_r = y + r * cols, *dy_r = dy + r * cols;
    float dot = 0.0f;
    for (int64_t i = 0; i < cols; ++i) dot += static_cast<float>(dy_r[i]) * static_cast<float>(y_r[i]);
    for (int64_t i = 0; i < cols; ++i) {
      dx[r * cols + i] = static_cast<T>(static_cast<float>(y_r[i]) * (static_cast<float>(dy_r[i]) - dot));
    }
  });
}

template void softmax(Stream, int64_t, int64_t, const float*, float*);
template void softmax(Stream, int64_t, int64_t, const bf16*, bf16*);
template void softmax_grad(Stream, int64_t, int64_t, const float*, const float*, float*);
template void softmax_grad(Stream, int64_t, int64_t, const bf16*, const bf16*, bf16*);

}  // namespace depthstill::cpu
