// The arithmetic of a depth probability map (dpm.h) that the CUDA kernels of dpm and dpm_head share.
#pragma once

#include "kernels/core/fast_math.cuh"
#include "kernels/core/mean.h"
#include "kernels/core/partials.cuh"
#include "kernels/dpm/dpm.h"

namespace depthstill::cuda {

__device__ inline bool pixel_counts(const DpmProblem& p, const float* teacher, int64_t pixel) {
  const int64_t row = p.options.first_row > 0 ? pixel / p.shape.W % p.shape.H : 0;
  return dpm_counts(p.bins, p.options, row, teacher[pixel]);
}

// The logarithm that normalises the target of a pixel that kLanes lanes share; `lane` of them.
template <int kLanes>
__device__ inline float target_norm(const DpmTableView& table, const DpmWindow& window, int lane) {
  if (table.target == DpmTarget::kMass) return window.log_norm;
  float sum = 0.0f;
  for (int j = lane; j < table.columns; j += kLanes) {
    if (j >= window.lo && j <= window.hi) sum += fast_exp(blended(window, table.columns, j));
  }
  return logf(warp_reduce<kLanes>(sum, Sum{}));
}

__device__ inline float log_target(const DpmTableView& table, const DpmWindow& window, float norm, int j) {
  const float v = blended(window, table.columns, j) - norm;
  return j >= window.lo && j <= window.hi && v > table.log_floor ? v : table.log_floor;
}

// -g of kTeacherStudent with eps > 0: t^2 / ((q + eps)(t + eps (q + eps))).
__device__ inline float kl_slope(float t, float q, float eps) {
  return t * fast_inverse(q + eps) * (t * fast_inverse(t + eps * (q + eps)));
}

// One bin of the window: its terms of kl and of sum_j q_j g_j (kStudentTeacher: of kl alone).
__device__ inline void add_kl(const DpmProblem& p, float log_t, float log_q, float* kl, float* pull) {
  constexpr float kLogZero = -103.97f;  // e^x rounds to 0 in float below it: the published code's q_i == 0
  const float eps = p.options.eps, q = fast_exp(log_q);
  if (p.options.kl == KlDirection::kStudentTeacher) {
    *kl -= q * (log_t - p.table.log_floor);
  } else if (log_t > p.table.log_floor) {
    const float t = fast_exp(log_t);
    if (eps == 0.0f) {
      *kl += t * (log_t - log_q);
      *pull -= t;
    } else {
      if (!(log_q < kLogZero)) *kl += t * fast_log(t * fast_inverse(q + eps) + eps);
      *pull -= q * kl_slope(t, q, eps);
    }
  }
}

// The target adds this to a * dkl/dx of one bin of the window.
__device__ inline float kl_gradient(const DpmProblem& p, float log_t, float q, float a) {
  if (p.options.kl == KlDirection::kStudentTeacher) return -a * q * (log_t - p.table.log_floor);
  if (!(log_t > p.table.log_floor)) return 0.0f;
  const float t = fast_exp(log_t), eps = p.options.eps;
  return -a * (eps == 0.0f ? t : q * kl_slope(t, q, eps));
}

// The gradient of one pixel's logits needs these besides the logits.
struct DpmPixelGradient {
  float lse = 1e30f, a = 0.0f, log_factor = 0.0f, step = 0.0f, constant = 0.0f;
  int first = 1 << 30;           // bin of the window's column 0; none if a == 0
  const float* log_t = nullptr;  // (columns)
  // dlogit = q (log_factor z + step b + constant) + the window's part

  // kLanes lanes share the pixel and write its log_t: others may use it after a barrier. `pixel` < 0: none, all
  // gradients are 0.
  template <int kLanes>
  __device__ static DpmPixelGradient of(const DpmProblem& p, const DpmGradientMaps& maps, float per_pixel,
                                        int64_t pixel, int lane, float* log_t) {
    DpmPixelGradient g;
    const bool inside = pixel >= 0;
    if (inside && per_pixel != 0.0f && pixel_counts(p, maps.teacher, pixel)) g.a = per_pixel;
    const float gd = inside && maps.ddepth != nullptr ? maps.ddepth[pixel] : 0.0f;
    if (per_pixel != 0.0f) {
      const DpmWindow window = locate(p.table, p.bins.bins, g.a != 0.0f ? maps.teacher[pixel] : p.table.d_min);
      const float norm = target_norm<kLanes>(p.table, window, lane);
      if (g.a != 0.0f) {
        for (int j = lane; j < p.table.columns; j += kLanes) log_t[j] = log_target(p.table, window, norm, j);
        g.first = window.first;
        g.log_t = log_t;
      }
    }
    if (g.a == 0.0f && gd == 0.0f) return g;
    g.lse = maps.lse[pixel];
    g.step = gd * static_cast<float>(p.bins.width());
    g.constant = -gd * (maps.depth[pixel] - static_cast<float>(p.bins.centre(0)));
    if (g.a == 0.0f) return g;
    const bool student_teacher = p.options.kl == KlDirection::kStudentTeacher;
    g.log_factor = student_teacher ? g.a : 0.0f;
    g.constant -= g.a * (student_teacher ? p.table.log_floor + maps.offset[pixel] : maps.offset[pixel]);
    return g;
  }

  __device__ float at(const DpmProblem& p, int bin, float logit) const {
    const float z = logit - lse, q = fast_exp(z);
    float value = q * (log_factor * z + (step * static_cast<float>(bin) + constant));
    const int j = bin - first;
    if (j >= 0 && j < p.table.columns) value += kl_gradient(p, log_t[j], q, a);
    return value;
  }
};

// The sums of partials (blocks, 2) are the sum of kl, and the counted pixels.
struct FinishDpm {
  float* result;
  __device__ void operator()(const double (&sums)[2]) const { assign_mean(sums[0], sums[1], result); }
};

}  // namespace depthstill::cuda
