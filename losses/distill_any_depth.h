// The losses of Distill Any Depth (He et al. 2025) that compare a student's relative map with its teacher's of the same
// region: L_sc (Eq. 7, with the normalisation of Eq. 1 to 6), L_lg (Eq. 8), which sees the teacher's maps of patches at
// their own size, and L_grad, as weighted parts of Eq. 9. Maps have neither scale nor unit; what a pixel, a context and
// a statistic are is in kernels/context/contexts.h.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/ops_loss.h"
#include "losses/network_objective.h"
#include "losses/online_teachers.h"
#include "models/dinov2.h"

namespace depthstill {

// The recipes' name of the objective.
inline constexpr const char* kDistillAnyDepthLoss = "distill_any_depth";

struct DistillOptions {
  ContextNorm norm = ContextNorm::kHybrid;                       // of L_sc; L_grad's is global
  ContextKind contexts = ContextKind::kRange;                    // of hybrid and local
  ContextNorm patch_norm = ContextNorm::kHybrid;                 // of L_lg
  float lambda_sc = 1.0f, lambda_lg = 0.5f, lambda_grad = 2.0f;  // 0 leaves a part out
  float lambda_feat = 1.0f;                                      // of L_feat, where there is a frozen encoder
  float alpha = 0.15f;  // L_feat leaves tokens alone that are nearer to its features than this
  double trim = 0;      // share of L_sc's greatest pixel losses that is dropped, per image
  ContextDetach detach = ContextDetach::kNothing;
  // Weight of the anchor, mean |ln(s_student / s_teacher)|: the losses leave the scale of the student's maps free, and
  // steps lengthen the weights that make it.
  float anchor = 0;
  bool reference = false;  // Hierarchical Depth Normalization as coded
};

// What L_lg compares: the teacher's maps of patches, and where those lie in the student's maps (resize_windows).
struct PatchMaps {
  Tensor maps;     // (K, P, P); undefined: there are none
  Tensor windows;  // (K, 4) int32
};

// student, teacher (N, H, W) fp32, with patches H = W; a pixel counts where the teacher's value is finite. The parts
// are "sc", "lg" where there are patches, "grad" and "anchor"; figures are the maps' medians and deviations
// (ScaleFigures), unless no part normalises. Throws Error if both have the weight 0.
LossResult cross_context_loss(const Tensor& student, const Tensor& teacher, const DistillOptions& options,
                              const PatchMaps& patches = {});

// Frozen networks that make labels before each step; null: none.
struct LabelNetworks {
  std::shared_ptr<const DinoV2> encoder = {};     // of L_feat: features of the student's images
  std::shared_ptr<OnlineTeachers> teachers = {};  // maps of regions and patches, where they have the batch's teacher
  int64_t most = 8;                               // images that the encoder sees at a time
};

// Trains a network with a relative head on regions: the first view's image, and the teacher's map of it. With a frozen
// encoder, whose features are a label of each image, L_feat is a part, too: "feat" (Sec. 3.3).
class DistillAnyDepth final : public NetworkObjective {
 public:
  // The model must outlive the objective. frozen: on the model's device. Throws Error if the model's head is another,
  // or its encoder and the frozen one have features of several sizes.
  DistillAnyDepth(DepthModel& model, const DistillOptions& options, std::vector<ParameterGroup> groups = {},
                  LabelNetworks frozen = {});
  std::string prepare(std::span<const BatchTensors> views) override;
  void make_labels(std::span<const BatchTensors> views, int64_t teacher) override;
  LabelMemory label_memory() const override;
  LossResult losses(std::span<const BatchTensors> views) override;

 private:
  void make_features(const Tensor& image);

  DistillOptions options_;
  LabelNetworks frozen_;
  size_t encoder_bytes_ = 0;            // while it runs
  std::map<int64_t, Tensor> features_;  // by number of images: a step's graph reads those of a whole batch
};

}  // namespace depthstill
