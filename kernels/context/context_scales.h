// What the losses of relative maps do not see: the scale of the student's maps. Of the root context of each image, over
// the images in which a pixel counts (N' of them):
//   t, s      mean median and mean deviation of the student's maps and of the teacher's
//   bounded   share of the student's contexts, among those with a pixel, whose deviation is at its bound
//   anchor    mean of |ln(s_x / s_y)|; all are 0 where nothing counts
// Gradient of the anchor, through s_x alone, where that is not at its bound:
//   dx_j = dloss / N' sign(ln(s_x / s_y)) / (s_x n) [sign(x_j - t) - [x_j = t] C / E]
// with C and E as context_loss.h has them. Bytes per pixel: the gradient's 9. Bound: launches, and memory.
#pragma once

#include <cstdint>

#include "kernels/context/contexts.h"

namespace depthstill {

// Where each goes, one float.
struct ContextScales {
  float *t_student = nullptr, *s_student = nullptr, *t_teacher = nullptr, *s_teacher = nullptr;
  float *bounded = nullptr, *anchor = nullptr;
  float* inverse_images = nullptr;  // 1 / N', which the gradient reads; 0 where nothing counts
};

// The factors of an image's gradient: dx_j = scale (sign(x_j - t) - [x_j = t] median).
struct AnchorSlope {
  float t, scale, median;

  DS_HOST_DEVICE static AnchorSlope of(const ContextStats& x, const ContextStats& y, float weight) {
    if (x.n == 0 || x.s <= kLeastDeviation) return {};
    const double C = x.n - 2.0 * x.below - x.equal;
    const double scale = static_cast<double>(weight) / (static_cast<double>(x.s) * x.n);
    const float ratio = x.s / y.s;
    return {x.t,
            static_cast<float>(ratio > 1.0f   ? scale
                               : ratio < 1.0f ? -scale
                                              : 0.0),
            static_cast<float>(C / x.equal)};
  }
  DS_HOST_DEVICE float at(float x) const { return scale * (x == t ? -median : sign_of(x - t)); }
};

// Sums over the images that one thread has looked at.
struct ScaleSums {
  double t_student = 0, s_student = 0, t_teacher = 0, s_teacher = 0, anchor = 0;
  double images = 0, contexts = 0, bounded = 0;

  // stats (2, N, contexts)
  DS_HOST_DEVICE void add(const ContextStats* stats, int64_t N, int count, int64_t n) {
    const ContextStats &x = stats[(n + 1) * count - 1], &y = stats[(N + n + 1) * count - 1];
    if (y.n == 0) return;
    images += 1;
    t_student += static_cast<double>(x.t);
    s_student += static_cast<double>(x.s);
    t_teacher += static_cast<double>(y.t);
    s_teacher += static_cast<double>(y.s);
    anchor += std::fabs(std::log(static_cast<double>(x.s) / static_cast<double>(y.s)));
    for (int u = 0; u < count; ++u) {
      const ContextStats& of = stats[n * count + u];
      contexts += of.n > 0;
      bounded += of.n > 0 && of.s <= kLeastDeviation;
    }
  }
  DS_HOST_DEVICE void write(const ContextScales& to) const {
    const double per_image = images > 0 ? 1 / images : 0;
    *to.t_student = static_cast<float>(t_student * per_image);
    *to.s_student = static_cast<float>(s_student * per_image);
    *to.t_teacher = static_cast<float>(t_teacher * per_image);
    *to.s_teacher = static_cast<float>(s_teacher * per_image);
    *to.anchor = static_cast<float>(anchor * per_image);
    *to.inverse_images = static_cast<float>(per_image);
    *to.bounded = static_cast<float>(contexts > 0 ? bounded / contexts : 0);
  }
};

// context_anchor_grad assigns dx (N, H, W); dloss and inverse_images (1). leaves and stats as context_statistics
// assigns them.
namespace cpu {
void context_scales(Stream stream, int64_t N, ContextKind kind, const ContextStats* stats, const ContextScales& to);
void context_anchor_grad(Stream stream, const MapShape& shape, ContextKind kind, const float* x, const uint8_t* leaves,
                         const ContextStats* stats, const float* inverse_images, const float* dloss, float* dx);
}  // namespace cpu
namespace cuda {
void context_scales(Stream stream, int64_t N, ContextKind kind, const ContextStats* stats, const ContextScales& to);
void context_anchor_grad(Stream stream, const MapShape& shape, ContextKind kind, const float* x, const uint8_t* leaves,
                         const ContextStats* stats, const float* inverse_images, const float* dloss, float* dx);
}  // namespace cuda
}  // namespace depthstill
