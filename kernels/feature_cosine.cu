#include "kernels/core/partials.cuh"
#include "kernels/core/warp_rows.cuh"
#include "kernels/feature_cosine.h"

namespace depthstill::cuda {
namespace {

// One warp per token; precondition channels % kPack == 0. One pass over both rows: 2 * sizeof(T) bytes per feature.
// Each block leaves the sum of its tokens' distances. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads)
    feature_cosine_kernel(int64_t tokens, int64_t channels, float alpha, const T* f, const T* g, TokenSlope* slopes,
                          double* partials) {
  const WarpRow<kPack> at;
  double distance[1] = {0};
  if (at.row < tokens) {
    float fg = 0.0f, ff = 0.0f, gg = 0.0f;
    for (int64_t c = at.first; c < channels; c += at.kStep) {
      float a[kPack], b[kPack];
      load_floats(f + at.row * channels + c, a);
      load_floats(g + at.row * channels + c, b);
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        fg += a[k] * b[k];
        ff += a[k] * a[k];
        gg += b[k] * b[k];
      }
    }
    const TokenDistance found = TokenDistance::of(warp_sum(fg), warp_sum(ff), warp_sum(gg), alpha, tokens);
    if (at.first == 0) {
      distance[0] = static_cast<double>(found.distance);
      slopes[at.row] = found.slope;
    }
  }
  store_partials<kRowThreads>(distance, blockIdx.x, partials);
}

struct FinishMean {
  double tokens;
  float* loss;
  __device__ void operator()(const double (&sums)[1]) const { *loss = static_cast<float>(sums[0] / tokens); }
};

// The same geometry without a reduction: 3 * sizeof(T) bytes per feature. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kRowThreads)
    feature_cosine_grad_kernel(int64_t tokens, int64_t channels, const T* f, const T* g, const TokenSlope* slopes,
                               const float* dloss, T* df) {
  const WarpRow<kPack> at;
  if (at.row >= tokens) return;
  const TokenSlope slope = slopes[at.row];
  const float scale = *dloss * slope.scale, shrink = *dloss * slope.shrink;
  for (int64_t c = at.first; c < channels; c += at.kStep) {
    float a[kPack], b[kPack];
    load_floats(f + at.row * channels + c, a);
    load_floats(g + at.row * channels + c, b);
#pragma unroll
    for (int k = 0; k < kPack; ++k) a[k] = a[k] * shrink - b[k] * scale;
    store_floats(df + at.row * channels + c, a);
  }
}

}  // namespace

template <class T>
void feature_cosine(Stream stream, int64_t tokens, int64_t channels, float alpha, const T* f, const T* g,
                    TokenSlope* slopes, float* loss) {
  const unsigned blocks = row_blocks(tokens);
  auto* partials = static_cast<double*>(stream.scratch->get(blocks * sizeof(double)));
  visit_pack<kPackSize<T>>(packable<kPackSize<T>>(channels, f, g), [&]<int kPack>() {
    launch(feature_cosine_kernel<kPack, T>, blocks, kRowThreads, 0, stream, tokens, channels, alpha, f, g, slopes,
           partials);
  });
  finish_partials<1>(stream, blocks, partials, FinishMean{static_cast<double>(tokens), loss});
}

template <class T>
void feature_cosine_grad(Stream stream, int64_t tokens, int64_t channels, const T* f, const T* g,
                         const TokenSlope* slopes, const float* dloss, T* df) {
  visit_pack<kPackSize<T>>(packable<kPackSize<T>>(channels, f, g, df), [&]<int kPack>() {
    launch(feature_cosine_grad_kernel<kPack, T>, row_blocks(tokens), kRowThreads, 0, stream, tokens, channels, f, g,
           slopes, dloss, df);
  });
}

template void feature_cosine(Stream, int64_t, int64_t, float, const float*, const float*, TokenSlope*, float*);
template void feature_cosine(Stream, int64_t, int64_t, float, const bf16*, const bf16*, TokenSlope*, float*);
template void feature_cosine_grad(Stream, int64_t, int64_t, const float*, const float*, const TokenSlope*, const float*,
                                  float*);
template void feature_cosine_grad(Stream, int64_t, int64_t, const bf16*, const bf16*, const TokenSlope*, const float*,
                                  bf16*);

}  // namespace depthstill::cuda
