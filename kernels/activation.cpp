#include "kernels/activation.h"

#include <algorithm>

#include "kernels/core/column_sums.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread
constexpr int64_t kChunkRows = 64;   // rows summed in float before the sum goes to double

constexpr int kMinLanes = 16;  // rows of fewer channels are taken several at a time, so that inner loops are long

template <Activation kind, class T>
void scale_by_slope(int64_t n, const T* y, const T* dy, T* dx) {
  for (int64_t i = 0; i < n; ++i) {
    dx[i] = static_cast<T>(static_cast<float>(dy[i]) * activation_slope<kind>(static_cast<float>(y[i])));
  }
}

// dx = dy * slope(y) over `rows` rows of `lanes`; adds the column sums to `total`. `chunk` is scratch of `lanes`
// floats.
template <Activation kind, class T>
void scale_and_sum(int64_t rows, int64_t lanes, const T* y, const T* dy, T* dx, float* __restrict__ chunk,
                   double* __restrict__ total) {
  for (int64_t first = 0; first < rows; first += kChunkRows) {
    std::fill(chunk, chunk + lanes, 0.0f);
    const int64_t last = std::min(rows, first + kChunkRows);
    for (int64_t row = first; row < last; ++row) {
      const T* from = dy + row * lanes;
      T* to = dx + row * lanes;
      if constexpr (kind == Activation::kNone) {
        if (to != from) std::copy(from, from + lanes, to);
      } else {
        scale_by_slope<kind>(lanes, y + row * lanes, from, to);
      }
      for (int64_t i = 0; i < lanes; ++i) chunk[i] += static_cast<float>(to[i]);
    }
    for (int64_t i = 0; i < lanes; ++i) total[i] += static_cast<double>(chunk[i]);
  }
}

template <Activation kind, class T>
void bias_grad(Stream stream, int64_t rows, int channels, const T* y, const T* dy, T* dx, float* dbias) {
  const int64_t fold = (kMinLanes + channels - 1) / channels;
  const int64_t lanes = fold * channels, wide_rows = rows / fold;
  const BlockSums sums(stream, wide_rows, BlockSums::rows_of_block(wide_rows, kGrain / lanes), lanes, lanes, channels);
  sums.add_blocks([&](int64_t first, int64_t last, double* total, float* chunk) {
    const int64_t at = first * lanes;
    scale_and_sum<kind>(last - first, lanes, y ? y + at : y, dy + at, dx + at, chunk, total);
  });
  double* total = sums.finish();
  const int64_t done = wide_rows * fold * channels;  // the rows left over, fewer than `fold`
  scale_and_sum<kind>(rows - wide_rows * fold, channels, y ? y + done : y, dy + done, dx + done, sums.more(), total);

  for (int c = 0; c < channels; ++c) {
    double sum = 0.0;
    for (int64_t i = c; i < lanes; i += channels) sum += total[i];
    dbias[c] = static_cast<float>(sum);
  }
}

}  // namespace

template <class T>
void activation(Stream, int64_t n, Activation kind, const T* x, T* y) {
  visit(kind, [&]<Activation k>() {
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(activate<k>(static_cast<float>(x[i])));
    });
  });
}

template <class T>
void activation_grad(Stream, int64_t n, Activation kind, const T* y, const T* dy, const T* second, T* dx) {
  visit(kind, [&]<Activation k>() {
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
      if (second == nullptr) return scale_by_slope<k>(end - begin, y + begin, dy + begin, dx + begin);
      for (int64_t i = begin; i < end; ++i) {
        const float sum = static_cast<float>(dy[i]) + static_cast<float>(second[i]);
        dx[i] = static_cast<T>(sum * activation_slope<k>(static_cast<float>(y[i])));
      }
    });
  });
}

template <class T>
void bias_activation_grad(Stream stream, int64_t rows, int channels, Activation kind, const T* y, const T* dy, T* dx,
                          float* dbias) {
  if (!dbias) {
    if (kind != Activation::kNone || dx != dy) activation_grad<T>(stream, rows * channels, kind, y, dy, nullptr, dx);
    return;
  }
  visit(kind, [&]<Activation k>() { bias_grad<k>(stream, rows, channels, y, dy, dx, dbias); });
}

template void activation(Stream, int64_t, Activation, const float*, float*);
template void activation(Stream, int64_t, Activation, const bf16*, bf16*);
template void activation_grad(Stream, int64_t, Activation, const float*, const float*, const float*, float*);
template void activation_grad(Stream, int64_t, Activation, const bf16*, const bf16*, const bf16*, bf16*);
template void bias_activation_grad(Stream, int64_t, int, Activation, const float*, const float*, float*, float*);
template void bias_activation_grad(Stream, int64_t, int, Activation, const bf16*, const bf16*, bf16*, float*);

}  // namespace depthstill::cpu
