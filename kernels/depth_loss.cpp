#include "kernels/depth_loss.h"

#include "kernels/core/parallel.h"
#include "kernels/core/vector_math.h"

namespace depthstill::cpu {
namespace {

struct RowSums {
  double count = 0, sum = 0, squares = 0;
};

template <DepthLossKind kind>
float error_of(float pred, float target) {
  if constexpr (kind == DepthLossKind::kSi) return vector_log(pred + kSiOffset) - vector_log(target + kSiOffset);
  return pred - target;
}

template <DepthLossKind kind>
RowSums sum_row(int64_t n, bool mask, const float* pred, const float* target) {
  double count = 0, sum = 0, squares = 0;
#pragma omp simd reduction(+ : count, sum, squares)
  for (int64_t i = 0; i < n; ++i) {
    const bool counts = !mask || valid_depth(target[i]);
    // An uncounted target may be NaN, so it is replaced, not multiplied by 0.
    const float y = counts ? target[i] : 1.0f, p = counts ? pred[i] : 1.0f;
    const double e = static_cast<double>(error_of<kind>(p, y));
    count += counts ? 1.0 : 0.0;
    if constexpr (kind == DepthLossKind::kSi) sum += e;
    if constexpr (kind == DepthLossKind::kMse) sum += e * e;
    if constexpr (kind == DepthLossKind::kL1) sum += e < 0 ? -e : e;
    squares += e * e;
  }
  return {count, sum, squares};
}

template <DepthLossKind kind>
void grad_row(int64_t n, bool mask, const float* pred, const float* target, const float* result, float dloss,
              float* dpred) {
  const float slope = dloss * result[1], mean = result[2], constant = dloss * result[3];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const bool counts = !mask || valid_depth(target[i]);
    const float y = counts ? target[i] : 1.0f, p = counts ? pred[i] : 1.0f;
    const float e = error_of<kind>(p, y);
    float d;
    if constexpr (kind == DepthLossKind::kSi) d = (slope * (e - mean) + constant) / (p + kSiOffset);
    if constexpr (kind == DepthLossKind::kMse) d = slope * e;
    if constexpr (kind == DepthLossKind::kL1) d = slope * (e > 0.0f ? 1.0f : (e < 0.0f ? -1.0f : e));
    dpred[i] = counts ? d : 0.0f;
  }
}

template <class F>
void visit_kind(DepthLossKind kind, F f) {
  switch (kind) {
    case DepthLossKind::kSi:
      return f.template operator()<DepthLossKind::kSi>();
    case DepthLossKind::kMse:
      return f.template operator()<DepthLossKind::kMse>();
    case DepthLossKind::kL1:
      return f.template operator()<DepthLossKind::kL1>();
  }
}

}  // namespace

void depth_loss(Stream stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                const float* target, float* result) {
  const int64_t rows = shape.N * shape.H;
  auto* sums = static_cast<RowSums*>(stream.scratch->get(static_cast<size_t>(rows) * sizeof(RowSums)));
  visit_kind(kind, [&]<DepthLossKind k>() {
    parallel_for(rows, 16, [&](int64_t r) {
      const int64_t at = r * shape.W;
      sums[r] = r % shape.H < shape.first_row ? RowSums{} : sum_row<k>(shape.W, mask, pred + at, target + at);
    });
  });
  RowSums total;
  for (int64_t r = 0; r < rows; ++r) {
    total.count += sums[r].count;
    total.sum += sums[r].sum;
    total.squares += sums[r].squares;
  }
  finish_depth_loss(kind, total.count, total.sum, total.squares, result);
}

void depth_loss_grad(Stream, DepthLossKind kind, const DepthMapShape& shape, bool mask, const float* pred,
                     const float* target, const float* result, const float* dloss, float* dpred) {
  visit_kind(kind, [&]<DepthLossKind k>() {
    parallel_for(shape.N * shape.H, 16, [&](int64_t r) {
      const int64_t at = r * shape.W;
      if (r % shape.H < shape.first_row) {
        for (int64_t w = 0; w < shape.W; ++w) dpred[at + w] = 0.0f;
      } else {
        grad_row<k>(shape.W, mask, pred + at, target + at, result, *dloss, dpred + at);
      }
    });
  });
}

}  // namespace depthstill::cpu
