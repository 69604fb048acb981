#include "kernels/context/context_scales.h"

#include "kernels/core/parallel.h"

namespace depthstill::cpu {

void context_scales(Stream, int64_t N, ContextKind kind, const ContextStats* stats, const ContextScales& to) {
  ScaleSums sums;
  for (int64_t n = 0; n < N; ++n) sums.add(stats, N, context_count(kind), n);
  sums.write(to);
}

void context_anchor_grad(Stream, const MapShape& shape, ContextKind kind, const float* x, const uint8_t* leaves,
                         const ContextStats* stats, const float* inverse_images, const float* dloss, float* dx) {
  const int count = context_count(kind);
  const int64_t pixels = shape.pixels();
  const float weight = *dloss * *inverse_images;
  parallel_for(shape.N * shape.H, 32, [&](int64_t row) {
    const int64_t n = row / shape.H;
    const AnchorSlope slope = AnchorSlope::of(stats[(n + 1) * count - 1], stats[(shape.N + n + 1) * count - 1], weight);
    const int64_t begin = n * pixels + row % shape.H * shape.W;
    for (int64_t i = begin; i < begin + shape.W; ++i) dx[i] = leaves[i] == kNotCounted ? 0.0f : slope.at(x[i]);
  });
}

}  // namespace depthstill::cpu
