#include "kernels/masked_mean.h"

#include <algorithm>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kChunk = 8192;   // elements of a partial sum: fixed, so that no sum depends on the number of threads
constexpr int64_t kGrain = 16384;  // elements worth a thread

struct Partial {
  double count = 0, sum = 0;
};

Partial sum_of(int64_t n, const float* x, const uint8_t* mask) {
  double count = 0, sum = 0;
#pragma omp simd reduction(+ : count, sum)
  for (int64_t i = 0; i < n; ++i) {
    const bool counts = mask == nullptr || mask[i] != 0;
    count += counts ? 1.0 : 0.0;
    sum += counts ? static_cast<double>(x[i]) : 0.0;
  }
  return {count, sum};
}

}  // namespace

void depth_mask(Stream, const DepthMapShape& shape, bool only_valid, const float* depth, uint8_t* mask) {
  parallel_for(shape.N * shape.H, 16, [&](int64_t r) {
    const bool row = r % shape.H >= shape.first_row;
    for (int64_t i = r * shape.W; i < (r + 1) * shape.W; ++i) mask[i] = row && (!only_valid || valid_depth(depth[i]));
  });
}

void masked_mean(Stream stream, bool mean, int64_t n, const float* x, const uint8_t* mask, float* result) {
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  auto* partials = static_cast<Partial*>(stream.scratch->get(static_cast<size_t>(chunks) * sizeof(Partial)));
  parallel_for(chunks, 2, [&](int64_t c) {
    const int64_t at = c * kChunk;
    partials[c] = sum_of(std::min(kChunk, n - at), x + at, mask == nullptr ? nullptr : mask + at);
  });
  Partial total;
  for (int64_t c = 0; c < chunks; ++c) {
    total.count += partials[c].count;
    total.sum += partials[c].sum;
  }
  finish_masked_mean(mean, total.count, total.sum, result);
}

void masked_mean_grad(Stream, int64_t n, const uint8_t* mask, const float* result, const float* dy, float* dx) {
  const float slope = *dy * result[1];
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) dx[i] = mask == nullptr || mask[i] != 0 ? slope : 0.0f;
  });
}

}  // namespace depthstill::cpu
