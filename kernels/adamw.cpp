#include "kernels/adamw.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

// Chunks have a fixed size, so that the sum does not depend on the number of threads.
constexpr int64_t kChunk = 8192;

double sum_of_squares(const float* x, int64_t n) {
  double sum[8] = {};  // independent sums, so that the loop vectorises
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int k = 0; k < 8; ++k) sum[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
  }
  for (; i < n; ++i) sum[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

}  // namespace

void adamw_set_lr(Stream, float lr, AdamWState* state) { state->lr = lr; }

void sum_of_squares(Stream stream, std::span<const AdamWSlot> slots, double* sum) {
  double total = 0.0;
  for (const AdamWSlot& slot : slots) {
    const int64_t chunks = (slot.n + kChunk - 1) / kChunk;
    auto* partial = static_cast<double*>(stream.scratch->get(static_cast<size_t>(chunks) * sizeof(double)));
    parallel_for(chunks, 8, [&](int64_t c) {
      partial[c] = sum_of_squares(slot.grad + c * kChunk, std::min(kChunk, slot.n - c * kChunk));
    });
    for (int64_t c = 0; c < chunks; ++c) total += partial[c];
  }
  *sum = total;
}

void adamw_prepare(Stream, const AdamWParams& params, float unscale, float max_norm, const double* sum,
                   AdamWState* state) {
  adamw_prepare_state(params, unscale, max_norm, *sum, state);
}

void adamw(Stream, std::span<const AdamWSlot> slots, const AdamWParams& params, const AdamWState* state,
           int32_t* broken) {
  if (!state->finite) return;
  std::atomic<bool> good{true};
  for (const AdamWSlot& slot : slots) {
    const AdamWState s = adamw_state_for(*state, slot.lr_factor);
    parallel_ranges(slot.n, 16384, [&](int64_t begin, int64_t end, int) {
      // Copies, which no write can change: else the loops below are not made of vectors.
      const AdamWParams constant = params;
      const AdamWState now = s;
      const float* __restrict grad = slot.grad;
      float* __restrict value = slot.value, * __restrict m = slot.m, * __restrict v = slot.v;
      for (int64_t first = begin; first < end; first += kChunk) {
        const int64_t last = std::min(first + kChunk, end);
        for (int64_t i = first; i < last; ++i) adamw_update(constant, now, grad[i], &value[i], &m[i], &v[i]);
        for (int64_t i = first; slot.rounded != nullptr && i < last; ++i) slot.rounded[i] = bf16(value[i]);
        // A loop of its own, while the chunk is in the cache: the update is compiled as if nobody looked.
        float none = 0;
#pragma omp simd reduction(+ : none)
        for (int64_t i = first; i < last; ++i) none += zero_if_finite(value[i], m[i], v[i]);
        if (none != 0.0f) good = false;
      }
    });
  }
  if (!good) *broken = 1;
}

}  // namespace depthstill::cpu
