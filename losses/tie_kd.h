// The training losses of TIE-KD (Choi et al. 2023, Eq. 4 and Tables 1 and 4), as weighted sums of the terms in
// losses/terms.h, and the objective that trains a network with them. TIE-KD itself has
//   total = beta (alpha L_DPM + (1 - alpha) L_depth),  L_depth = 1 - SSIM.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "losses/network_objective.h"
#include "losses/terms.h"

namespace depthstill {

enum class DepthTarget : uint8_t { kTeacher, kTruth };

struct LossOptions : TermOptions {
  TermWeights weights;  // named_loss() sets them
  DepthTarget target = DepthTarget::kTeacher;
  int top_rows = 0;  // rows left out of every part, where the teacher is unreliable
  DepthRange range;  // a target counts within it; TieKd sets that of its model
  // Pixels whose target does not count (kernels/depth_target.h) are left out. false: every pixel counts, its target
  // brought into the range, as in the published code; but not for SI and for ground truth.
  bool mask = true;
};

// "tie_kd" (L_DPM and L_depth), "dpm" and "depth" (either alone, unweighted), "res_kd_ssim", "res_kd_mse", "res_kd_si",
// "res_kd_ssim_si", "res_kd_ssim_mse" (regression against the teacher, SSIM weighted 1.5), "l1" (mean absolute error),
// "baseline" (SI against ground truth). All rows count. alpha and beta matter to tie_kd alone.
// Throws Error for another name.
LossOptions named_loss(std::string_view name, float alpha = 0.1f, float beta = 10.0f);
std::vector<std::string> loss_names();

// output has H rows, or H - top_rows for a model that computes no others. teacher and truth are (N, H, W) fp32, metres;
// the one that is not the target may be undefined. Stored logits are consumed: their gradient takes their place
// (engine/ops_loss.h). The parts have the terms' names. tally: that of depth_target().
LossResult tie_kd_loss(const Prediction& output, const Tensor& teacher, const Tensor& truth, const LossOptions& options,
                       DpmHeadWay way = DpmHeadWay::kStored, const Tensor& tally = {});

struct TieKdOptions {
  LossOptions loss = named_loss("tie_kd");
  bool dead_rows = true;           // leave out rows that cannot reach the loss: the same result, faster
  std::optional<bool> fused_head;  // true: a DPM head's logits are never stored; unset: the faster (dpm_head_way.h)
  std::vector<ParameterGroup> groups = {};
};

// Trains a network on the first view of a batch.
class TieKd final : public NetworkObjective {
 public:
  // The model must outlive the objective.
  TieKd(DepthModel& model, const TieKdOptions& options);

  LossResult losses(std::span<const BatchTensors> views) override;
  std::string prepare(std::span<const BatchTensors> views) override;
  std::optional<TargetTally> targets() const override;
  Metadata choices() const override;  // "fused_head": "1" or "0"
  void restore(const Metadata& saved) override;

 private:
  int64_t first_row() const { return options_.dead_rows ? options_.loss.top_rows : 0; }

  TieKdOptions options_;
  std::optional<DpmHeadWay> way_;  // empty until it is chosen or restored
  Tensor tally_;                   // on the device of the batches; undefined until prepare()
};

}  // namespace depthstill
