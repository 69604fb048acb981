#include "kernels/layer_norm.h"

#include <cmath>

#include "kernels/core/channels.h"
#include "kernels/core/column_sums.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

int64_t grain_rows(int64_t channels) { return (1 << 13) / channels + 1; }

// One row of the gradient, whose sums come from the row that is in the L1 cache.
template <class T>
void grad_row(int64_t channels, const T* x, const float* weight, float mean, float rstd, const T* dy, T* dx) {
  const float n = static_cast<float>(channels);
  const auto g_of = [&]<class V>(int64_t c) { return load<V>(dy + c) * load<V>(weight + c); };
  const float g_mean = sum_channels(channels, g_of) / n;
  const float gh_mean = sum_channels(channels,
                                     [&]<class V>(int64_t c) {
                                       return g_of.template operator()<V>(c) * ((load<V>(x + c) - mean) * rstd);
                                     }) /
                        n;
  for_channels(channels, [&]<class V>(int64_t c) {
    const V h = (load<V>(x + c) - mean) * rstd;
    store(dx + c, (g_of.template operator()<V>(c) - g_mean - h * gh_mean) * rstd);
  });
}

}  // namespace

template <class T>
void layer_norm(Stream, int64_t rows, int64_t channels, float eps, const T* x, const float* weight, const float* bias,
                T* y, float* mean, float* rstd) {
  parallel_for(rows, grain_rows(channels), [&](int64_t row) {
    const T* from = x + row * channels;
    T* to = y + row * channels;
    const float n = static_cast<float>(channels);
    const float m = sum_channels(channels, [&]<class V>(int64_t c) { return load<V>(from + c); }) / n;
    const float var = sum_channels(channels,
                                   [&]<class V>(int64_t c) {
                                     const V d = load<V>(from + c) - m;
                                     return d * d;
                                   }) /
                      n;
    const float r = 1.0f / std::sqrt(var + eps);
    for_channels(channels, [&]<class V>(int64_t c) {
      store(to + c, (load<V>(from + c) - m) * r * load<V>(weight + c) + load<V>(bias + c));
    });
    mean[row] = m;
    rstd[row] = r;
  });
}

template <class T>
void layer_norm_grad(Stream stream, int64_t rows, int64_t channels, const LayerNormInput<T>& in, const T* dy, T* dx,
                     float* dweight, float* dbias) {
  const auto dx_row = [&](int64_t row) {
    const int64_t at = row * channels;
    grad_row(channels, in.x + at, in.weight, in.mean[row], in.rstd[row], dy + at, dx + at);
  };
  if (!dweight && !dbias) {
    if (dx) parallel_for(rows, grain_rows(channels), dx_row);
    return;
  }
  const ColumnSums sums(stream, rows, channels, 2);
  sums.add_rows([&](int64_t row, float* to) {
    const T *x_row = in.x + row * channels, *dy_row = dy + row * channels;
    const float m = in.mean[row], r = in.rstd[row];
    for_channels(channels, [&]<class V>(int64_t c) {
      const V dy_c = load<V>(dy_row + c), h = (load<V>(x_row + c) - m) * r;
      store(to + c, load<V>(to + c) + dy_c * h);
      store(to + channels + c, load<V>(to + channels + c) + dy_c);
    });
    if (dx) dx_row(row);
  });
  if (dweight) sums.finish(0, dweight);
  if (dbias) sums.finish(1, dbias);
}

#define DS_INSTANTIATE(T)                                                                                              \
  template void layer_norm(Stream, int64_t, int64_t, float, const T*, const float*, const float*, T*, float*, float*); \
  template void layer_norm_grad(Stream, int64_t, int64_t, const LayerNormInput<T>&, const T*, T*, float*, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cpu
