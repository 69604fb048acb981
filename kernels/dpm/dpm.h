// Depth probability map loss (TIE-KD Eq. 3-5), fused: nothing of size [pixels, bins] exists besides the logits, whose
// storage becomes their gradient. Per pixel, with q = softmax(x), log q_i = x_i - lse and the teacher's t
// (dpm_target.h):
//   depth d = sum_i q_i c_i                                                                                  (Eq. 3)
//   kStudentTeacher  kl = sum_i q_i (log q_i - log t_i)        dkl/dx_i = q_i (log q_i - log t_i - kl)       (Eq. 5)
//   kTeacherStudent  kl = sum over t_i > floor, q_i != 0 of t_i log(t_i / (q_i + eps) + eps): the published code;
//                    g_i = -t_i^2 / ((q_i + eps)(t_i + eps (q_i + eps))),  dkl/dx_i = q_i (g_i - sum_j q_j g_j);
//                    eps = 0: kl = sum t_i (log t_i - log q_i), nothing dropped, dkl/dx_i = q_i - t_i
//   dd/dx_i = q_i (c_i - d)
// The loss is the mean of kl over the counted pixels: rows >= first_row and, with `mask`, a teacher depth that counts
// within [d_min, d_max] (depth_target.h). Counted depths are clamped to that range.
// Bound: memory. Bytes per pixel: forward sizeof(T) per channel and 16 of maps (teacher, depth, lse, offset); gradient
// twice sizeof(T) per channel and 20 of maps (ddepth too).
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"
#include "kernels/depth_target.h"
#include "kernels/dpm/dpm_target.h"

namespace depthstill {

enum class KlDirection : uint8_t { kStudentTeacher, kTeacherStudent };

struct DpmOptions {
  DpmTarget target = DpmTarget::kMass;
  KlDirection kl = KlDirection::kTeacherStudent;  // Eq. 5 saturates within a few steps when trained from scratch
  float sigma = 0.8f;    // metres, as the paper; the published code's combined loss ran with 0.5
  float floor = 1e-16f;  // least t of kMass, least density of kSoftmaxPdf
  float eps = 1e-7f;     // eps of kTeacherStudent
  bool mask = true;      // false: every pixel counts, as in the published code
  int64_t first_row = 0;

  bool operator==(const DpmOptions&) const = default;
};

struct DpmShape {
  int64_t N = 0, H = 0, W = 0;
  int64_t channels = 0;  // channels of the logits, >= bins; those past the bins are padding
};

DS_HOST_DEVICE inline bool dpm_counts(const DpmBins& bins, const DpmOptions& options, int64_t row, float teacher) {
  if (row < options.first_row) return false;
  return !options.mask || valid_depth(teacher, {bins.d_min, bins.d_max});
}

// One problem: `table` is make_dpm_table's for bins and options, where the kernel runs; unused without a teacher.
struct DpmProblem {
  DpmShape shape;
  DpmBins bins;
  DpmOptions options;
  DpmTableView table;
};

// dpm assigns these: depth, lse, offset (N, H, W) and result (2) = {mean kl, 1 / counted pixels}, zeros if none counts.
// offset, which the gradient subtracts, is kl (kStudentTeacher) or sum_j q_j g_j. offset and result are null without
// KL.
struct DpmMaps {
  float *depth = nullptr, *lse = nullptr, *offset = nullptr, *result = nullptr;
};

// The gradient reads these besides the logits: teacher and dpm's maps; dkl (1) null: no KL; ddepth (N, H, W) null: no
// depth gradient.
struct DpmGradientMaps {
  const float *teacher = nullptr, *depth = nullptr, *lse = nullptr, *offset = nullptr, *result = nullptr;
  const float *dkl = nullptr, *ddepth = nullptr;

  // The factor of dkl/dx for counted pixels.
  DS_HOST_DEVICE float per_pixel() const { return dkl != nullptr ? *dkl * result[1] : 0.0f; }
};

// dpm:      logits (N, H, W, channels)   teacher (N, H, W) or null: no KL
// dpm_grad: logits become dlogits = dkl * d(mean kl)/dlogits + ddepth * dd/dlogits; padding channels become 0.
namespace cpu {
template <class T>
void dpm(Stream stream, const DpmProblem& problem, const T* logits, const float* teacher, const DpmMaps& maps);
template <class T>
void dpm_grad(Stream stream, const DpmProblem& problem, const DpmGradientMaps& maps, T* logits);
}  // namespace cpu
namespace cuda {
template <class T>
void dpm(Stream stream, const DpmProblem& problem, const T* logits, const float* teacher, const DpmMaps& maps);
template <class T>
void dpm_grad(Stream stream, const DpmProblem& problem, const DpmGradientMaps& maps, T* logits);
}  // namespace cuda
}  // namespace depthstill
