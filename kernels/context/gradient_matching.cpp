#include "kernels/context/gradient_matching.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/lanes.h"
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

// One row of R and of N(x) at a scale: every 2^k-th pixel, and before and behind them one that does not count. Such are
// 0, and -1 in `counts` says what counts.
struct Row {
  float *R, *a;
  int32_t* counts;

  Row from(int64_t column) const { return {R + column, a + column, counts + column}; }
};

// Lanes of the pairs (p, q), where both count, else 0.
struct Pairs {
  Lanes difference, a;  // R_q - R_p, a_q - a_p

  Pairs(const Row& p, const Row& q, int64_t i) {
    const LaneInts both = load_lanes(p.counts + i) & load_lanes(q.counts + i);
    difference = where(both, load_lanes(q.R + i) - load_lanes(p.R + i));
    a = where(both, load_lanes(q.a + i) - load_lanes(p.a + i));
  }
};

// The rows of a band and those around it that its pixels look at, at all scales.
class Band {
 public:
  static int64_t floats(int64_t W) { return 3 * kRows * stride(W) + kLanes; }

  // Rows top - 8 to top + 32 of image n; `memory` has floats() of them.
  Band(const Problem& p, int64_t n, int64_t top, float* memory) : p_(p), n_(n), top_(top), memory_(memory) {}

  int64_t width(int scale) const { return (p_.shape.W + (1 << scale) - 1) >> scale; }

  // A row of the image that is divisible by 2^scale and loaded.
  Row row(int64_t row, int scale) const {
    const int64_t length = stride(p_.shape.W);
    int64_t offset = 1;
    for (int k = 0; k < scale; ++k) offset += padded(width(k));
    float* at = memory_ + (row - top_ + kGradientReach) * 3 * length + offset;
    return {at, at + length, reinterpret_cast<int32_t*>(at + 2 * length)};
  }

  void load(int64_t image_row) const {
    if (image_row < 0 || image_row >= p_.shape.H) return;
    const int64_t W = p_.shape.W, at = (n_ * p_.shape.H + image_row) * W;
    const ContextStats &xs = p_.student(n_), &ys = p_.teacher(n_);
    const Row fine = row(image_row, 0);
    fine.R[-1] = fine.a[-1] = 0.0f;
    fine.counts[-1] = 0;
    for (int64_t w = 0; w < padded(W); w += kLanes) {
      const int64_t count = std::clamp<int64_t>(W - w, 0, kLanes);
      const LaneInts counts = load_first(p_.leaves + at + w, count, kNotCounted) != kNotCounted;
      const Lanes a = (load_first(p_.x + at + w, count) - xs.t) / xs.s;
      const Lanes R = a - (load_first(p_.y + at + w, count) - ys.t) / ys.s;
      store_lanes(fine.a + w, where(counts, a));
      store_lanes(fine.R + w, where(counts, R));
      std::memcpy(fine.counts + w, &counts, sizeof(counts));
    }
    for (int k = 1; k < p_.options.scales && image_row % (1 << k) == 0; ++k) {
      const Row from = row(image_row, k - 1), to = row(image_row, k);
      for (int64_t w = 0; w < padded(width(k)); ++w) {
        const bool inside = w < width(k);
        to.R[w] = inside ? from.R[2 * w] : 0.0f;
        to.a[w] = inside ? from.a[2 * w] : 0.0f;
        to.counts[w] = inside ? from.counts[2 * w] : 0;
      }
    }
  }

 private:
  static constexpr int64_t kRows = kGradientReach + kBandRows + 1;
  // Whole lanes, and at least one pixel more.
  static int64_t padded(int64_t width) { return (width / kLanes + 1) * kLanes; }
  // A row's scales lie one behind the other.
  static int64_t stride(int64_t W) { return 1 + 2 * W + kGradientScales * (kLanes + 1); }

  const Problem& p_;
  int64_t n_, top_;
  float* memory_;
};

// The pairs (p[i], q[i]) of a row: sum of |R_q - R_p|, and of its sign times a_q - a_p.
void add_pairs(int64_t width, const Row& p, const Row& q, double* value, double* A) {
  constexpr int64_t kBlock = 256;  // pairs between two additions in double
  for (int64_t begin = 0; begin < width; begin += kBlock) {
    Lanes values{}, as{};
    for (int64_t i = begin; i < std::min(width, begin + kBlock); i += kLanes) {
      const Pairs pairs(p, q, i);
      values += magnitude(pairs.difference);
      as += sign_of(pairs.difference) * pairs.a;
    }
    *value += sum_of(values);
    *A += sum_of(as);
  }
}

int64_t counted(int64_t width, const Row& row) {
  LaneInts counts{};
  for (int64_t i = 0; i < width; i += kLanes) counts -= load_lanes(row.counts + i);
  int64_t sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += counts[i];
  return sum;
}

GradientSums sums_of(const Problem& p, const Band& band, int64_t top, int64_t bottom) {
  GradientSums sums;
  for (int64_t r = top; r <= bottom; ++r) band.load(r);
  for (int64_t r = top; r < bottom; ++r) {
    for (int k = 0; k < p.options.scales && r % (1 << k) == 0; ++k) {
      const int64_t W = band.width(k), below = r + (1 << k);
      const Row row = band.row(r, k);
      sums.count[k] += static_cast<double>(counted(W, row));
      add_pairs(W, row, row.from(1), &sums.value[k], &sums.A[k]);
      if (below < p.shape.H) add_pairs(W, row, band.row(below, k), &sums.value[k], &sums.A[k]);
    }
  }
  return sums;
}

// weight times the signs of R - R of the neighbours, in lanes of one row of a scale: g there.
class Signs {
 public:
  Signs(const Problem& p, const Band& band, int64_t r, int scale)
      : row_(band.row(r, scale)), width_(band.width(scale)) {
    const int64_t step = 1 << scale;
    if (r - step >= 0) others_[columns_++] = band.row(r - step, scale);
    if (r + step < p.shape.H) others_[columns_++] = band.row(r + step, scale);
  }
  int64_t width() const { return width_; }

  Lanes at(int64_t i, float weight) const {
    Lanes sum = sign_of(Pairs(row_.from(-1), row_, i).difference) - sign_of(Pairs(row_, row_.from(1), i).difference);
    for (int k = 0; k < columns_; ++k) sum -= sign_of(Pairs(row_, others_[k], i).difference);
    return weight * sum;
  }

 private:
  Row row_, others_[2];
  int columns_ = 0;
  int64_t width_;
};

void grad_row(const Problem& p, const Band& band, const ContextSlope& slope, const float* weights, int64_t n, int64_t r,
              float* dx) {
  const int64_t W = p.shape.W, at = (n * p.shape.H + r) * W;
  float* g = dx + at;
  const Signs fine(p, band, r, 0);
  for (int64_t w = 0; w < W; w += kLanes) {
    store_first(g + w, std::min<int64_t>(kLanes, W - w), fine.at(w, weights[0]));
  }
  for (int k = 1; k < p.options.scales && r % (1 << k) == 0; ++k) {
    const Signs coarse(p, band, r, k);
    for (int64_t w = 0; w < coarse.width(); w += kLanes) {
      const Lanes signs = coarse.at(w, weights[k]);
      for (int64_t i = 0; i < std::min<int64_t>(kLanes, coarse.width() - w); ++i) g[(w + i) << k] += signs[i];
    }
  }
  const int32_t* counts = band.row(r, 0).counts;
  for (int64_t w = 0; w < W; w += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, W - w);
    const Lanes v = load_first(p.x + at + w, count), one = lanes_of(1.0f);
    const Lanes side = where(v > slope.t, one) - where(v < slope.t, one);
    const Lanes at_median = where(v == slope.t, lanes_of(slope.median));
    const Lanes d = slope.scale * (load_first(g + w, count) - slope.deviation * side + at_median);
    store_first(g + w, count, where(load_lanes(counts + w), d));
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
