#include "kernels/layer_scale.h"

#include "kernels/core/channels.h"
#include "kernels/core/column_sums.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

int64_t grain_rows(int64_t channels) { return (1 << 14) / channels + 1; }

}  // namespace

template <class T>
void layer_scale(Stream, int64_t rows, int64_t channels, const T* x, const T* branch, const float* gamma, T* y) {
  parallel_for(rows, grain_rows(channels), [&](int64_t row) {
    const int64_t at = row * channels;
    for_channels(channels, [&]<class V>(int64_t c) {
      store(y + at + c, load<V>(x + at + c) + load<V>(gamma + c) * load<V>(branch + at + c));
    });
  });
}

template <class T>
void layer_scale_grad(Stream stream, int64_t rows, int64_t channels, const T* branch, const float* gamma, const T* dy,
                      T* dbranch, float* dgamma) {
  const auto scale_row = [&](int64_t at) {
    for_channels(channels,
                 [&]<class V>(int64_t c) { store(dbranch + at + c, load<V>(gamma + c) * load<V>(dy + at + c)); });
  };
  if (!dgamma) {
    if (dbranch) parallel_for(rows, grain_rows(channels), [&](int64_t row) { scale_row(row * channels); });
    return;
  }
  const ColumnSums sums(stream, rows, channels, 1);
  sums.add_rows([&](int64_t row, float* to) {
    const int64_t at = row * channels;
    for_channels(channels, [&]<class V>(int64_t c) {
      store(to + c, load<V>(to + c) + load<V>(dy + at + c) * load<V>(branch + at + c));
    });
    if (dbranch) scale_row(at);
  });
  sums.finish(0, dgamma);
}

template void layer_scale(Stream, int64_t, int64_t, const float*, const float*, const float*, float*);
template void layer_scale(Stream, int64_t, int64_t, const bf16*, const bf16*, const float*, bf16*);
template void layer_scale_grad(Stream, int64_t, int64_t, const float*, const float*, const float*, float*, float*);
template void layer_scale_grad(Stream, int64_t, int64_t, const bf16*, const float*, const bf16*, bf16*, float*);

}  // namespace depthstill::cpu
