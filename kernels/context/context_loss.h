// Distillation loss L_Dis of relative depth maps (Distill Any Depth, Eq. 2 to 6): per counted pixel i
//   l_i = mean over its contexts u of |a - b|,  a = N_u(x_i), b = N_u(y_i)        (contexts.h, context_statistics.h)
//   kHybrid its three contexts   kLocal its leaf   kGlobal the root   kNone l_i = |x_i - y_i|, without statistics
//   loss = sum l_i / M, M the counted pixels of the batch; 0 where nothing counts
// trim q: of each image the floor(q n) pixels of greatest l_i are dropped, ties at the border share; M stays.
// Gradient, with w = 1 / (|U| M), sigma_i = sign(a - b) times what the trim keeps, per context of n pixels
//   A = sum sigma_i a,  B = sum sigma_i,  C = sum sign(x - t) = n - 2 below - equal,  E = equal
//   dx_i += w / s [sigma_i - p A / n sign(x_i - t) + [x_i = t] (p A C / n - B) / E],  p = 0 where s was bounded, else 1
// (reference: n + 1 for n, p = 1). Pixels equal to the median share its gradient. `detach` holds statistics of x
// constant: the median (B = C = 0), or both (A = B = 0). dx = 0 where y does not count.
// Sums are in double, in an order that the shape alone decides. Kept for the gradient besides x and y: a byte per pixel
// (its leaf) and a few numbers per context; the gradient makes l_i again, bit by bit.
// Bytes per pixel: forward 9 (trim 30 more), gradient 13. Bound: memory.
#pragma once

#include <cstdint>

#include "kernels/context/contexts.h"
#include "kernels/context/selection.h"

namespace depthstill {

enum class ContextNorm : uint8_t { kHybrid, kLocal, kGlobal, kNone };
enum class ContextDetach : uint8_t { kNothing, kMedian, kBoth };

struct ContextLossOptions {
  ContextNorm norm = ContextNorm::kHybrid;
  ContextDetach detach = ContextDetach::kNothing;
  double trim = 0;         // share of each image, [0, 1]
  bool reference = false;  // as the statistics were taken
};

struct ContextSums {
  float A, B;
};
// What the trim keeps of a pixel: all of it below the border, `share` of it at the border. A loss of NaN is kept.
struct TrimBorder {
  float border, share;
  DS_HOST_DEVICE float kept(float loss) const { return loss > border ? 0.0f : loss == border ? share : 1.0f; }

  // Of the selection that WantedBorder asks for.
  DS_HOST_DEVICE static TrimBorder of(const Selection& found) {
    if (found.rank < 0) return {-1.0f, 0.0f};  // all of it is dropped
    return {value_of(found.low), static_cast<float>(found.rank + 1 - found.below) / static_cast<float>(found.equal)};
  }
};

// Results of the forward pass, which the gradient reads.
struct ContextLossResult {
  float* loss = nullptr;          // (2) = {loss, 1 / M}, zeros if nothing counts
  ContextSums* sums = nullptr;    // (N, contexts); unused with kNone
  TrimBorder* borders = nullptr;  // (N); unused without trim
};

DS_HOST_DEVICE constexpr int first_level(ContextNorm norm) { return norm == ContextNorm::kGlobal ? 2 : 0; }
DS_HOST_DEVICE constexpr int end_level(ContextNorm norm) {
  return norm == ContextNorm::kNone ? 0 : norm == ContextNorm::kLocal ? 1 : kContextLevels;
}
DS_HOST_DEVICE constexpr int level_count(ContextNorm norm) {
  return norm == ContextNorm::kNone ? 1 : end_level(norm) - first_level(norm);
}

// Calls f.operator()<norm>().
template <class F>
void visit_norm(ContextNorm norm, const F& f) {
  switch (norm) {
    case ContextNorm::kHybrid:
      return f.template operator()<ContextNorm::kHybrid>();
    case ContextNorm::kLocal:
      return f.template operator()<ContextNorm::kLocal>();
    case ContextNorm::kGlobal:
      return f.template operator()<ContextNorm::kGlobal>();
    case ContextNorm::kNone:
      return f.template operator()<ContextNorm::kNone>();
  }
}

// The two normalisations of a context.
struct ContextPair {
  float tx, sx, ty, sy;
  DS_HOST_DEVICE float student(float x) const { return (x - tx) / sx; }
  DS_HOST_DEVICE float teacher(float y) const { return (y - ty) / sy; }
};
// What a pixel without contexts reads: its difference is 0.
DS_HOST_DEVICE inline ContextPair no_context() { return {0.0f, 1.0f, 0.0f, 1.0f}; }

// A context's factors of the gradient: dx += scale (sigma - deviation sign(x - t) + [x = t] median).
struct ContextSlope {
  float t, scale, deviation, median;
};

// weight = w dloss. A, B, C, E as above.
DS_HOST_DEVICE inline ContextSlope slope_of(const ContextStats& x, double weight, double A, double B, bool reference,
                                            ContextDetach detach) {
  if (x.equal == 0) return {};
  const double n = x.n + (reference ? 1.0 : 0.0);
  const bool bounded = !reference && x.s <= kLeastDeviation;
  const double deviation = bounded || detach == ContextDetach::kBoth ? 0.0 : A / n;
  const double C = x.n - 2.0 * x.below - x.equal;
  const double median = detach == ContextDetach::kNothing ? (deviation * C - B) / x.equal : 0.0;
  return {x.t, static_cast<float>(weight / static_cast<double>(x.s)), static_cast<float>(deviation),
          static_cast<float>(median)};
}

// The sums of the batch: {sum of l_i, M} -> loss (2).
DS_HOST_DEVICE inline void finish_context_loss(double sum, double count, float* loss) {
  loss[0] = count > 0 ? static_cast<float>(sum / count) : 0.0f;
  loss[1] = count > 0 ? static_cast<float>(1 / count) : 0.0f;
}

// context_loss:      leaves and stats of `in` are null with kNone
// context_loss_grad: assigns dx (N, H, W) = dloss * gradient; dloss (1)
namespace cpu {
void context_loss(Stream stream, const MapShape& shape, ContextKind kind, const ContextLossOptions& options,
                  const ContextInput& in, const ContextLossResult& result);
void context_loss_grad(Stream stream, const MapShape& shape, ContextKind kind, const ContextLossOptions& options,
                       const ContextInput& in, const ContextLossResult& result, const float* dloss, float* dx);
}  // namespace cpu
namespace cuda {
void context_loss(Stream stream, const MapShape& shape, ContextKind kind, const ContextLossOptions& options,
                  const ContextInput& in, const ContextLossResult& result);
void context_loss_grad(Stream stream, const MapShape& shape, ContextKind kind, const ContextLossOptions& options,
                       const ContextInput& in, const ContextLossResult& result, const float* dloss, float* dx);
}  // namespace cuda
}  // namespace depthstill
