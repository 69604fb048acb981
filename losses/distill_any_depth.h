// The losses of Distill Any Depth (He et al. 2025) that compare a student's relative map with its teacher's of the same
// region: L_sc (Eq. 7, with the normalisation of Eq. 1 to 6) and L_grad, as weighted parts of Eq. 9. Maps have neither
// scale nor unit; what a pixel, a context and a statistic are is in kernels/context/contexts.h.
#pragma once

#include "engine/ops_loss.h"
#include "losses/network_objective.h"

namespace depthstill {

// The recipes' name of the objective.
inline constexpr const char* kDistillAnyDepthLoss = "distill_any_depth";

struct DistillOptions {
  ContextNorm norm = ContextNorm::kHybrid;     // of L_sc; L_grad's is global
  ContextKind contexts = ContextKind::kRange;  // of hybrid and local
  float lambda_sc = 1.0f, lambda_grad = 2.0f;  // 0 leaves a part out
  double trim = 0;                             // share of L_sc's greatest pixel losses that is dropped, per image
  ContextDetach detach = ContextDetach::kNothing;
  // Weight of the anchor, mean |ln(s_student / s_teacher)|: the losses leave the scale of the student's maps free, and
  // steps lengthen the weights that make it.
  float anchor = 0;
  bool reference = false;  // Hierarchical Depth Normalization as coded
};

// student, teacher (N, H, W) fp32; a pixel counts where the teacher's value is finite. The parts are "sc", "grad" and
// "anchor"; figures are the maps' medians and deviations (ScaleFigures), unless no part normalises.
// Throws Error if both have the weight 0.
LossResult cross_context_loss(const Tensor& student, const Tensor& teacher, const DistillOptions& options);

// Trains a network with a relative head on regions: the first view's image, and the teacher's map of it.
class DistillAnyDepth final : public NetworkObjective {
 public:
  // The model must outlive the objective. Throws Error if its head is another.
  DistillAnyDepth(DepthModel& model, const DistillOptions& options, std::vector<ParameterGroup> groups = {});
  LossResult losses(std::span<const BatchTensors> views) override;

 private:
  DistillOptions options_;
};

}  // namespace depthstill
