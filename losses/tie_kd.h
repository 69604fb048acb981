// The training losses of TIE-KD (Choi et al. 2023, Eq. 4 and Tables 1 and 4), as weighted sums of the ops in
// engine/ops_loss.h. TIE-KD itself: total = beta (alpha L_DPM + (1 - alpha) L_depth), L_depth = 1 - SSIM.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/ops_loss.h"

namespace depthstill {

enum class DepthTarget : uint8_t { kTeacher, kTruth };

struct LossOptions {
  // total = sum of weight * part; a part of weight 0 is not computed. named_loss() sets them.
  float dpm_weight = 1.0f, ssim_weight = 9.0f;  // beta alpha, beta (1 - alpha)
  float si_weight = 0.0f, mse_weight = 0.0f, l1_weight = 0.0f;
  DepthTarget target = DepthTarget::kTeacher;
  int top_rows = 110;  // left out of every part, as the teacher is unreliable there
  bool mask = true;    // leave out pixels without a target; always so for SI and for ground truth
  DpmOptions dpm;      // its mask and first_row are not used
  SsimMode ssim_mode = SsimMode::kCentred;

  bool needs_logits() const { return dpm_weight != 0.0f; }
};

// "tie_kd" (L_DPM and L_depth), "dpm" and "depth" (either alone, unweighted), "res_kd_ssim", "res_kd_mse", "res_kd_si",
// "res_kd_ssim_si", "res_kd_ssim_mse" (regression against the teacher, SSIM weighted 1.5, all rows), "l1" (mean
// absolute error, all rows), "baseline" (SI against ground truth, all rows). alpha and beta matter to tie_kd alone.
// Throws Error for another name.
LossOptions named_loss(std::string_view name, float alpha = 0.1f, float beta = 10.0f);
std::vector<std::string> loss_names();

struct LossResult {
  Tensor total;                                       // one fp32 element, to call backward() on
  std::vector<std::pair<std::string, Tensor>> parts;  // "dpm", "ssim", "si", "mse", "l1": before weighting, for the log
  Tensor depth;                                       // the prediction (N, rows, W), without history
};

// output: depth (N, rows, W), logits (N, rows, W, channels >= bins), or the map before a DPM head. teacher, truth:
// (N, H, W) fp32, the one that is not the target may be undefined. rows = H, or H - top_rows for a model that computes
// no others. Logits are consumed: their gradient takes their place (engine/ops_loss.h).
LossResult distillation_loss(const Prediction& output, const Tensor& teacher, const Tensor& truth,
                             const LossOptions& options, const DpmBins& bins);

}  // namespace depthstill
