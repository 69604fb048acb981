#include "kernels/context/gradient_matching.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kBandRows = 32;  // rows of a band: fixed, so that no sum depends on the number of threads
static_assert(kBandRows % kGradientReach == 0);

struct Problem {
  MapShape shape;
  ContextKind kind;
  GradientMatchingOptions options;
  const float *x, *y;
  const uint8_t* leaves;
  const ContextStats* stats;

  int64_t bands() const { return (shape.H + kBandRows - 1) / kBandRows; }
  // The root contexts of image n.
  const ContextStats& student(int64_t n) const { return stats[(n + 1) * context_count(kind) - 1]; }
  const ContextStats& teacher(int64_t n) const { return stats[(shape.N + n + 1) * context_count(kind) - 1]; }
};

// One row of R and of N(x) at a scale: every 2^k-th pixel; 0 where it does not count.
struct Row {
  float *R, *a, *counts;
};

// The rows of a band and those around it that its pixels look at, at all scales.
class Band {
 public:
  static int64_t floats(int64_t W) { return 3 * kRows * stride(W); }

  // Rows top - 8 to top + 32 of image n; `memory` has floats() of them.
  Band(const Problem& p, int64_t n, int64_t top, float* memory) : p_(p), n_(n), top_(top), memory_(memory) {}

  int64_t width(int scale) const { return (p_.shape.W + (1 << scale) - 1) >> scale; }

  // A row of the image that is divisible by 2^scale and loaded.
  Row row(int64_t row, int scale) const {
    const int64_t length = stride(p_.shape.W);
    int64_t offset = 0;
    for (int k = 0; k < scale; ++k) offset += width(k);
    float* at = memory_ + (row - top_ + kGradientReach) * 3 * length + offset;
    return {at, at + length, at + 2 * length};
  }

  void load(int64_t image_row) const {
    if (image_row < 0 || image_row >= p_.shape.H) return;
    const int64_t W = p_.shape.W, at = (n_ * p_.shape.H + image_row) * W;
    const ContextStats &xs = p_.student(n_), &ys = p_.teacher(n_);
    const ContextPair pair{xs.t, xs.s, ys.t, ys.s};
    const Row fine = row(image_row, 0);
#pragma omp simd
    for (int64_t w = 0; w < W; ++w) {
      const bool counts = p_.leaves[at + w] != kNotCounted;
      const float a = pair.student(p_.x[at + w]), R = a - pair.teacher(p_.y[at + w]);
      fine.a[w] = counts ? a : 0.0f;
      fine.R[w] = counts ? R : 0.0f;
      fine.counts[w] = counts ? 1.0f : 0.0f;
    }
    for (int k = 1; k < p_.options.scales && image_row % (1 << k) == 0; ++k) {
      const Row from = row(image_row, k - 1), to = row(image_row, k);
      for (int64_t w = 0; w < width(k); ++w) {
        to.R[w] = from.R[2 * w];
        to.a[w] = from.a[2 * w];
        to.counts[w] = from.counts[2 * w];
      }
    }
  }

 private:
  static constexpr int64_t kRows = kGradientReach + kBandRows + 1;
  // A row's scales lie one behind the other.
  static int64_t stride(int64_t W) { return 2 * W + kGradientScales; }

  const Problem& p_;
  int64_t n_, top_;
  float* memory_;
};

// The pairs (p[i], q[i]): sum of |R_q - R_p|, and of its sign times a_q - a_p.
void add_pairs(int64_t count, const Row& p, const Row& q, double* value, double* A) {
  constexpr int64_t kBlock = 256;  // pairs between two additions in double
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    float values = 0.0f, as = 0.0f;
#pragma omp simd reduction(+ : values, as)
    for (int64_t i = begin; i < end; ++i) {
      const bool both = p.counts[i] * q.counts[i] != 0.0f;
      const float difference = both ? q.R[i] - p.R[i] : 0.0f;
      values += std::fabs(difference);
      as += sign_of(difference) * (q.a[i] - p.a[i]);
    }
    *value += static_cast<double>(values);
    *A += static_cast<double>(as);
  }
}

Row shifted(const Row& row) { return {row.R + 1, row.a + 1, row.counts + 1}; }

GradientSums sums_of(const Problem& p, const Band& band, int64_t top, int64_t bottom) {
  GradientSums sums;
  for (int64_t r = top; r <= bottom; ++r) band.load(r);
  for (int64_t r = top; r < bottom; ++r) {
    for (int k = 0; k < p.options.scales && r % (1 << k) == 0; ++k) {
      const int64_t W = band.width(k), below = r + (1 << k);
      const Row row = band.row(r, k);
      float count = 0.0f;
#pragma omp simd reduction(+ : count)
      for (int64_t w = 0; w < W; ++w) count += row.counts[w];
      sums.count[k] += static_cast<double>(count);
      add_pairs(W - 1, row, shifted(row), &sums.value[k], &sums.A[k]);
      if (below < p.shape.H) add_pairs(W, row, band.row(below, k), &sums.value[k], &sums.A[k]);
    }
  }
  return sums;
}

// g of pairs along a column, at every 2^scale-th pixel of a row: weight * sign(R - R of the other), added.
void add_signs(int64_t count, int scale, float weight, const Row& row, const Row& other, float* g) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const bool both = row.counts[i] * other.counts[i] != 0.0f;
    g[i << scale] += both ? weight * sign_of(row.R[i] - other.R[i]) : 0.0f;
  }
}

void grad_row(const Problem& p, const Band& band, const ContextSlope& slope, const float* weights, int64_t n, int64_t r,
              float* dx) {
  const int64_t W = p.shape.W, at = (n * p.shape.H + r) * W;
  float* g = dx + at;
  std::fill_n(g, W, 0.0f);
  for (int k = 0; k < p.options.scales && r % (1 << k) == 0; ++k) {
    const int64_t width = band.width(k), step = 1 << k;
    const Row row = band.row(r, k);
    add_signs(width - 1, k, weights[k], row, shifted(row), g);
    add_signs(width - 1, k, weights[k], shifted(row), row, g + step);
    if (r - step >= 0) add_signs(width, k, weights[k], row, band.row(r - step, k), g);
    if (r + step < p.shape.H) add_signs(width, k, weights[k], row, band.row(r + step, k), g);
  }
  const float* counts = band.row(r, 0).counts;
#pragma omp simd
  for (int64_t w = 0; w < W; ++w) {
    const float v = p.x[at + w], side = v > slope.t ? 1.0f : v < slope.t ? -1.0f : 0.0f;
    const float d = slope.scale * (g[w] - slope.deviation * side + (v == slope.t ? slope.median : 0.0f));
    g[w] = counts[w] != 0.0f ? d : 0.0f;
  }
}

// body(n, top, bottom, memory) for every band of rows.
template <class Body>
void for_each_band(const Problem& p, float* memory, const Body& body) {
  const int64_t bands = p.bands();
  parallel_ranges(p.shape.N * bands, 1, [&](int64_t begin, int64_t end, int part) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t top = i % bands * kBandRows;
      body(i / bands, top, std::min(p.shape.H, top + kBandRows), memory + part * Band::floats(p.shape.W));
    }
  });
}

void add(const GradientSums& from, GradientSums* to) {
  for (int k = 0; k < kGradientScales; ++k) {
    to->value[k] += from.value[k];
    to->count[k] += from.count[k];
    to->A[k] += from.A[k];
  }
}

}  // namespace

void gradient_matching(Stream stream, const MapShape& shape, ContextKind kind, const GradientMatchingOptions& options,
                       const ContextInput& in, const GradientMatchingResult& result) {
  const Problem p{shape, kind, options, in.x, in.y, in.leaves, in.stats};
  const int64_t bands = p.bands(), floats = num_threads() * Band::floats(shape.W);
  auto* sums = static_cast<GradientSums*>(
      stream.scratch->get(static_cast<size_t>((shape.N * bands + shape.N)) * sizeof(GradientSums) +
                          static_cast<size_t>(floats) * sizeof(float)));
  GradientSums* images = sums + shape.N * bands;
  for_each_band(p, reinterpret_cast<float*>(images + shape.N),
                [&](int64_t n, int64_t top, int64_t bottom, float* memory) {
                  sums[n * bands + top / kBandRows] = sums_of(p, Band(p, n, top, memory), top, bottom);
                });
  GradientSums batch;
  for (int64_t n = 0; n < shape.N; ++n) {
    images[n] = {};
    for (int64_t band = 0; band < bands; ++band) add(sums[n * bands + band], &images[n]);
    add(images[n], &batch);
  }
  finish_gradient_matching(batch, result.loss);
  for (int64_t n = 0; n < shape.N; ++n) result.A[n] = finish_gradient_image(images[n], batch);
}

void gradient_matching_grad(Stream stream, const MapShape& shape, ContextKind kind,
                            const GradientMatchingOptions& options, const ContextInput& in,
                            const GradientMatchingResult& result, const float* dloss, float* dx) {
  const Problem p{shape, kind, options, in.x, in.y, in.leaves, in.stats};
  const size_t bytes = static_cast<size_t>(num_threads() * Band::floats(shape.W)) * sizeof(float);
  for_each_band(
      p, static_cast<float*>(stream.scratch->get(bytes)), [&](int64_t n, int64_t top, int64_t bottom, float* memory) {
        const Band band(p, n, top, memory);
        for (int k = 0; k < options.scales; ++k) band.load(top - (1 << k));
        for (int64_t r = top; r <= bottom; ++r) band.load(r);
        const ContextSlope slope = slope_of(p.student(n), static_cast<double>(*dloss), static_cast<double>(result.A[n]),
                                            0, options.reference, options.detach);
        for (int64_t r = top; r < bottom; ++r) grad_row(p, band, slope, result.loss + 1, n, r, dx);
      });
}

}  // namespace depthstill::cpu
