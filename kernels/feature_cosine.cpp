#include "kernels/feature_cosine.h"

#include "kernels/core/channels.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

int64_t grain_tokens(int64_t channels) { return (1 << 13) / channels + 1; }

template <class T>
float dot(int64_t channels, const T* a, const T* b) {
  return sum_channels(channels, [&]<class V>(int64_t c) { return load<V>(a + c) * load<V>(b + c); });
}

}  // namespace

template <class T>
void feature_cosine(Stream stream, int64_t tokens, int64_t channels, float alpha, const T* f, const T* g,
                    TokenSlope* slopes, float* loss) {
  auto* distances = static_cast<float*>(stream.scratch->get(static_cast<size_t>(tokens) * sizeof(float)));
  parallel_for(tokens, grain_tokens(channels), [&](int64_t t) {
    const T *a = f + t * channels, *b = g + t * channels;
    const TokenDistance found =
        TokenDistance::of(dot(channels, a, b), dot(channels, a, a), dot(channels, b, b), alpha, tokens);
    distances[t] = found.distance;
    slopes[t] = found.slope;
  });
  double sum = 0;
  for (int64_t t = 0; t < tokens; ++t) sum += static_cast<double>(distances[t]);
  *loss = static_cast<float>(sum / static_cast<double>(tokens));
}

template <class T>
void feature_cosine_grad(Stream, int64_t tokens, int64_t channels, const T* f, const T* g, const TokenSlope* slopes,
                         const float* dloss, T* df) {
  parallel_for(tokens, grain_tokens(channels), [&](int64_t t) {
    const T *a = f + t * channels, *b = g + t * channels;
    T* to = df + t * channels;
    const float scale = *dloss * slopes[t].scale, shrink = *dloss * slopes[t].shrink;
    for_channels(channels,
                 [&]<class V>(int64_t c) { store(to + c, load<V>(a + c) * shrink - load<V>(b + c) * scale); });
  });
}

template void feature_cosine(Stream, int64_t, int64_t, float, const float*, const float*, TokenSlope*, float*);
template void feature_cosine(Stream, int64_t, int64_t, float, const bf16*, const bf16*, TokenSlope*, float*);
template void feature_cosine_grad(Stream, int64_t, int64_t, const float*, const float*, const TokenSlope*, const float*,
                                  float*);
template void feature_cosine_grad(Stream, int64_t, int64_t, const bf16*, const bf16*, const TokenSlope*, const float*,
                                  bf16*);

}  // namespace depthstill::cpu
