// Contexts of relative depth maps (Distill Any Depth, Sec. 3.1; Hierarchical Depth Normalization): sets of pixels of
// one image, found from the teacher's map y alone, within which the student's map x and y are normalised.
//   A pixel counts where y is finite. x elsewhere is never read into a result.
//   The levels S = 4, 2, 1 nest: a pixel has one leaf and belongs to it and to its two ancestors. Contexts are numbered
//   from the leaves up. The root holds all pixels.
//     range     [m, M], the range of y, cut into S intervals: leaf = number of k = 1..3 with y >= ((4-k) m + k M) / 4
//     quantile  the same with the values of rank ceil(k (n-1) / 4), which is y >= the interpolated quartile
//     grid      S x S cells; row r and column c are in cell (floor(S r / H), floor(S c / W)); leaves in Z order
//   In a context of n values v: t = their lower median, s = max(mean |v - t|, 1e-6), N(v) = (v - t) / s. The division
//   is a true one: two pixels are {0, 2} in both maps then, and their difference is exactly 0.
//   reference  HDN as coded: s = sum |v - t| / (n + 1) + 1e-6, and the last interval is open at its upper end (`open`),
//              so that the greatest pixels of y are in no context. They count all the same.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

enum class ContextKind : uint8_t { kRange, kQuantile, kGrid };

struct ContextRule {
  ContextKind kind = ContextKind::kRange;
  bool reference = false;
  bool open = false;  // only of use with kRange and kQuantile
};

struct MapShape {
  int64_t N = 0, H = 0, W = 0;
  DS_HOST_DEVICE int64_t pixels() const { return H * W; }  // of an image; below 2^31
};

// Statistics of one map in one context; zeros and the least s where it has no pixel.
struct ContextStats {
  float t = 0, s = 0;
  int32_t n = 0, below = 0, equal = 0;  // pixels; those whose value is below t; those equal to t
};

// A student's and a teacher's maps, x and y (N, H, W), with what context_statistics assigns of them.
struct ContextInput {
  const float *x = nullptr, *y = nullptr;
  const uint8_t* leaves = nullptr;
  const ContextStats* stats = nullptr;
};

inline constexpr int kContextLevels = 3;
inline constexpr float kLeastDeviation = 1e-6f;
// Leaves above kLeaves: a pixel that counts without a context, and one that does not count.
inline constexpr uint8_t kNoContext = 254, kNotCounted = 255;

// Leaves first to end - 1.
struct LeafRange {
  int first, end;
};

// kFan = 2: intervals; kFan = 4: cells. The contexts are kFan^2 leaves, kFan of the level above, and the root.
template <int kFan>
struct ContextTree {
  static constexpr int kFanBits = kFan == 2 ? 1 : 2, kLeaves = kFan * kFan, kContexts = kFan * kFan + kFan + 1;

  // The contexts of a level are first(level) to end(level) - 1.
  DS_HOST_DEVICE static constexpr int first(int level) { return level == 0 ? 0 : level == 1 ? kLeaves : kContexts - 1; }
  DS_HOST_DEVICE static constexpr int end(int level) { return level == 0 ? kLeaves : kContexts - (2 - level); }

  // The context of a level (0: leaves) that a leaf lies in; also kContexts where leaf == kLeaves, "none".
  DS_HOST_DEVICE static constexpr int context(int leaf, int level) {
    if (leaf >= kLeaves) return kContexts;
    return level == 0 ? leaf : level == 1 ? kLeaves + leaf / kFan : kContexts - 1;
  }
  // The leaves of a context lie side by side.
  DS_HOST_DEVICE static constexpr LeafRange leaves(int context) {
    if (context < kLeaves) return {context, context + 1};
    if (context == kContexts - 1) return {0, kLeaves};
    return {(context - kLeaves) * kFan, (context - kLeaves + 1) * kFan};
  }
};

// Calls f.operator()<ContextTree>() with the tree of a kind.
template <class F>
void visit_tree(ContextKind kind, const F& f) {
  if (kind == ContextKind::kGrid) return f.template operator()<ContextTree<4>>();
  f.template operator()<ContextTree<2>>();
}

inline constexpr int context_count(ContextKind kind) {
  return kind == ContextKind::kGrid ? ContextTree<4>::kContexts : ContextTree<2>::kContexts;
}

DS_HOST_DEVICE inline bool is_finite(float v) { return v - v == 0.0f; }

// The least float that is not below v: y >= v in double where y >= this.
DS_HOST_DEVICE inline float least_not_below(double v) {
  const auto nearest = static_cast<float>(v);
  return static_cast<double>(nearest) < v ? nextafterf(nearest, INFINITY) : nearest;
}

// Borders of the leaves among the values of y. Those of `range` are found in double, exact for floats within 2^27 of
// one another, so that every device draws the same ones.
struct LeafBorders {
  float border[3], top;  // a value >= top has no context

  DS_HOST_DEVICE static LeafBorders of_range(const ContextRule& rule, float low, float high) {
    const double m = static_cast<double>(low), M = static_cast<double>(high);
    LeafBorders borders{};
    for (int k = 1; k < 4; ++k) {
      // HDN's own order of operations differs in the last bit.
      borders.border[k - 1] = least_not_below(rule.reference ? m + (M - m) * k / 4 : ((4 - k) * m + k * M) / 4);
    }
    borders.top = rule.open ? high : INFINITY;
    return borders;
  }
  DS_HOST_DEVICE uint8_t leaf(float y) const {
    if (!is_finite(y)) return kNotCounted;
    if (y >= top) return kNoContext;
    return static_cast<uint8_t>((y >= border[0]) + (y >= border[1]) + (y >= border[2]));
  }
};

// The cell of a pixel in a grid of 4 x 4, in Z order.
DS_HOST_DEVICE inline uint8_t cell_of(int64_t row, int64_t col, int64_t H, int64_t W) {
  const auto r = static_cast<int>(4 * row / H), c = static_cast<int>(4 * col / W);
  return static_cast<uint8_t>((r / 2 * 2 + c / 2) * 4 + r % 2 * 2 + c % 2);
}

DS_HOST_DEVICE inline float context_deviation(bool reference, double sum, int32_t n) {
  const double s = reference ? sum / (n + 1.0) + 1e-6 : n > 0 ? sum / n : 0.0;
  const float least = reference ? 0.0f : kLeastDeviation;
  return s < static_cast<double>(least) ? least : static_cast<float>(s);  // NaN stays
}

// NaN where v is, as the loss's gradient has to be then.
DS_HOST_DEVICE inline float sign_of(float v) { return v > 0.0f ? 1.0f : v < 0.0f ? -1.0f : v; }

}  // namespace depthstill
