#include "kernels/head_conv.h"

#include <algorithm>
#include <type_traits>

#include "kernels/core/channels.h"
#include "kernels/core/column_sums.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kChunkPixels = 256;

float total(Lanes lanes) {
  float sums[kLanes];
  store(sums, lanes);
  for (int n = kLanes / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) sums[i] += sums[i + n];
  }
  return sums[0];
}

}  // namespace

template <class T>
void head_conv(Stream, int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
               const float* bias, float* y) {
  parallel_for(pixels, (1 << 14) / channels + 1, [&](int64_t pixel) {
    const T* from = x + pixel * channels;
    Lanes sums = {};
    float rest = 0.0f;
    for_channels(channels, [&]<class V>(int64_t c) {
      const V product = load<V>(from + c) * load<V>(weight + c);
      if constexpr (std::is_same_v<V, Lanes>)
        sums += product;
      else
        rest += product;
    });
    y[pixel] = head_activate(kind, total(sums) + rest + *bias);
  });
}

// The columns of the sums are dweight, below_sums and dbias.
template <class T>
void head_conv_grad(Stream stream, int64_t pixels, int64_t channels, Activation kind, const T* x, const float* weight,
                    const float* y, const float* dy, const HeadConvGradients<T>& to) {
  const int64_t columns = 2 * channels + 1;
  const ColumnSums sums(stream, pixels, columns, 1, kChunkPixels, columns);
  sums.add_chunks([&](int64_t first, int64_t last, float* sum) {
    float *const dweight = sum, *const below_sums = sum + channels, *const dbias = sum + 2 * channels;
    for (int64_t pixel = first; pixel < last; ++pixel) {
      const T* from = x + pixel * channels;
      const float g = head_slope(kind, kind == Activation::kNone ? 0.0f : y[pixel], dy[pixel]);
      *dbias += g;
      if (to.dweight) {
        for_channels(channels,
                     [&]<class V>(int64_t c) { store(dweight + c, load<V>(dweight + c) + g * load<V>(from + c)); });
      }
      if (!to.dx) continue;
      T* dx = to.dx + pixel * channels;
      if (to.below == Activation::kNone) {
        for_channels(channels, [&]<class V>(int64_t c) { store(dx + c, g * load<V>(weight + c)); });
        continue;
      }
      for_channels(channels, [&]<class V>(int64_t c) {
        const V d = load<V>(from + c) > 0.0f ? g * load<V>(weight + c) : V{};
        store(below_sums + c, load<V>(below_sums + c) + d);
        store(dx + c, d);
      });
    }
  });
  const float* all = sums.floats();
  sums.finish(0, sums.floats());
  if (to.dweight) std::copy_n(all, channels, to.dweight);
  if (to.below_sums) std::copy_n(all + channels, channels, to.below_sums);
  if (to.dbias) *to.dbias = all[2 * channels];
}

template void head_conv(Stream, int64_t, int64_t, Activation, const float*, const float*, const float*, float*);
template void head_conv(Stream, int64_t, int64_t, Activation, const bf16*, const float*, const float*, float*);
template void head_conv_grad(Stream, int64_t, int64_t, Activation, const float*, const float*, const float*,
                             const float*, const HeadConvGradients<float>&);
template void head_conv_grad(Stream, int64_t, int64_t, Activation, const bf16*, const float*, const float*,
                             const float*, const HeadConvGradients<bf16>&);

}  // namespace depthstill::cpu
