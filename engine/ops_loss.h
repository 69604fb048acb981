// The catalogue of differentiable losses: one declaration each. Each returns one fp32 element; depth maps are (N, H, W)
// fp32 in metres, and no gradient flows into a target. Formulas and gradients are in kernels/<op>.h. Rows above
// `first_row` are left out. With `mask`, so are pixels whose target is not finite and > 0.
#pragma once

#include <string>
#include <utility>

#include "engine/autograd.h"
#include "engine/tensor.h"
#include "kernels/activation.h"
#include "kernels/context/gradient_matching.h"
#include "kernels/depth_target.h"
#include "kernels/dpm/dpm.h"
#include "kernels/screen_labels.h"
#include "kernels/ssim.h"

namespace depthstill {

// ---- depth probability maps --------------------------------------------------------------------------------------
// logits (N, H, W, channels >= bins), fp32 or bf16. The gradient is written over the logits' storage: nothing else may
// read the logits after backward() began, and only one of these ops may be applied to them.
struct DpmOutput {
  Tensor kl;     // one element: mean over the counted pixels
  Tensor depth;  // (N, H, W): mean of the bins' centres under softmax; differentiable
};
DpmOutput dpm_loss(const Tensor& logits, const Tensor& teacher, const DpmBins& bins, const DpmOptions& options = {});
Tensor dpm_depth(const Tensor& logits, const DpmBins& bins);

// The same of the logits conv2d(x, weight, bias), which are never stored: x (N, H, W, C), weight (bins, 1, 1, C) and
// bias (bins) fp32. These work where dpm_head_supported(): always on the CPU, in bf16 and for C = 128 on CUDA.
bool dpm_head_supported(Device device, DType dtype, int64_t C, const DpmBins& bins);
DpmOutput dpm_head_loss(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& teacher,
                        const DpmBins& bins, const DpmOptions& options = {});
Tensor dpm_head_depth(const Tensor& x, const Tensor& weight, const Tensor& bias, const DpmBins& bins);

// The last layer of a network with a DPM head: the 1 x 1 convolution that makes a logit per bin.
struct DpmHead {
  Tensor weight, bias;                   // (bins, 1, 1, C) and (bins), fp32
  Activation below = Activation::kNone;  // activation that ends the map which the head reads
  std::string path = {};                 // path of the module, for profiles
};

// A map of depth bins: the logits, or the map x that a head is still to be applied to. Which of the ops above makes
// the logits, whether they are stored, and how many channels the libraries of a GPU want of them is known here and in
// engine/ops alone.
struct DpmMap {
  Tensor logits;  // (N, H, W, channels >= bins); undefined: they are those of `head` over x
  Tensor x;       // (N, H, W, C)
  DpmHead head;
  DpmBins bins;

  DpmMap(Tensor stored_logits, const DpmBins& of_bins) : logits(std::move(stored_logits)), bins(of_bins) {}
  DpmMap(Tensor below_head, DpmHead of_head, const DpmBins& of_bins)
      : x(std::move(below_head)), head(std::move(of_head)), bins(of_bins) {}
  const Shape& shape() const { return logits.defined() ? logits.shape() : x.shape(); }  // N, H and W are the map's
};

// A DpmHeadWay says how a head's logits are made; engine/ops/dpm_head_way.h chooses it.
enum class DpmHeadWay : uint8_t {
  kStored,  // a convolution makes them once; the gradient is written over them
  kFused,   // a few pixels at a time, in both directions; where there are no kernels for that, they are stored
};
DpmOutput dpm_loss(const DpmMap& map, const Tensor& teacher, const DpmOptions& options = {},
                   DpmHeadWay way = DpmHeadWay::kStored);
Tensor dpm_depth(const DpmMap& map, DpmHeadWay way = DpmHeadWay::kFused);
Tensor dpm_logits(const DpmMap& map);  // (N, H, W, bins)

// ---- depth maps --------------------------------------------------------------------------------------------------
// What a loss learns from: the target's last `rows` rows (0: all), without the pixels that do not count within the
// range (kernels/depth_target.h has the rule): those are 0, or with kClamp brought into it. No gradient flows into it.
// tally: a TargetTally, made by zeros({kTallyElements}, DType::kInt64, device), that stays; undefined: nothing is
// counted.
inline constexpr int64_t kTallyElements = sizeof(TargetTally) / sizeof(int64_t);
struct DepthTargetOptions {
  TargetMode mode = TargetMode::kMask;
  int64_t rows = 0;
  int64_t first_row = 0;  // rows of the result above are not counted
};
Tensor depth_target(const Tensor& target, DepthRange range, const DepthTargetOptions& options = {},
                    const Tensor& tally = {});
TargetTally read_tally(const Tensor& tally);  // waits for the device

struct SsimOptions {
  SsimMode mode = SsimMode::kCentred;
  bool mask = true;
  int64_t first_row = 0;
};
Tensor ssim_loss(const Tensor& pred, const Tensor& target, const SsimOptions& options = {});  // 1 - mean SSIM

struct DepthLossOptions {
  bool mask = true;
  int64_t first_row = 0;
};
Tensor si_loss(const Tensor& pred, const Tensor& target, const DepthLossOptions& options = {});  // scale-invariant log
Tensor mse_loss(const Tensor& pred, const Tensor& target, const DepthLossOptions& options = {});
Tensor l1_loss(const Tensor& pred, const Tensor& target, const DepthLossOptions& options = {});

// ---- relative maps -----------------------------------------------------------------------------------------------
// x is the student's map, y the teacher's, (N, H, W) fp32 without a unit. A pixel counts where y is finite: 0 is a
// value. Both losses read the same statistics of a pair.
struct Contexts {
  ContextRule rule;
  Tensor leaves;  // (N, H, W) uint8
  Tensor stats;   // (2, N, contexts, 5) int32: ContextStats
};
Contexts context_statistics(const Tensor& x, const Tensor& y, const ContextRule& rule = {});
// L_Dis; with kNone the contexts may be empty. options.reference is that of the statistics.
Tensor context_loss(const Tensor& x, const Tensor& y, const Contexts& contexts, ContextLossOptions options = {});
// L_grad, which wants statistics whose root holds all counted pixels (rule.open is false).
Tensor gradient_matching(const Tensor& x, const Tensor& y, const Contexts& contexts,
                         GradientMatchingOptions options = {});

// L_feat: mean over the tokens of 1 - cos(f, g), counted where it is at least alpha. f, g (..., C), fp32 or bf16.
Tensor feature_cosine(const Tensor& f, const Tensor& g, float alpha);

// The scale of the maps, which no loss above sees; one element each, over the images in which something counts.
struct ScaleFigures {
  Tensor t_student, s_student, t_teacher, s_teacher;  // mean median and mean deviation
  Tensor bounded;                                     // share of the student's contexts whose deviation is at its bound
  Tensor anchor;                                      // mean |ln(s_student / s_teacher)|, which x gets a gradient from
};
ScaleFigures context_scales(const Tensor& x, const Contexts& contexts);

// What a teacher's network says of a batch becomes labels, in place: maps (N, H, W), and patches (N K, P, P), the K of
// an image side by side, or undefined. They are NaN where they are not finite, and throughout where the image's map
// teaches nothing. tally: a LabelTally, made by zeros({kLabelTallyElements}, DType::kInt64, device), that stays.
// Returns each image's LabelFault, (N) int32. Outside of the tape.
inline constexpr int64_t kLabelTallyElements = sizeof(LabelTally) / sizeof(int64_t);
Tensor screen_labels(const Tensor& maps, const Tensor& patches, const Tensor& tally);
LabelTally read_label_tally(const Tensor& tally);  // waits for the device

}  // namespace depthstill
