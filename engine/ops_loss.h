// The catalogue of differentiable losses: one declaration each. Each returns one fp32 element; depth maps are (N, H, W)
// fp32 in metres, and no gradient flows into a target. Formulas and gradients are in kernels/<op>.h. Rows above
// `first_row` are left out. With `mask`, so are pixels whose target is not finite and > 0.
#pragma once

#include <utility>

#include "engine/autograd.h"
#include "engine/tensor.h"
#include "kernels/dpm.h"
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
// bias (bins) fp32. Only where dpm_head_supported(): always on the CPU, in bf16 and for C = 128 on CUDA.
bool dpm_head_supported(const Tensor& x, const DpmBins& bins);
DpmOutput dpm_head_loss(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& teacher,
                        const DpmBins& bins, const DpmOptions& options = {});
Tensor dpm_head_depth(const Tensor& x, const Tensor& weight, const Tensor& bias, const DpmBins& bins);

// What a network gives to a loss: depth (N, H, W), logits (N, H, W, channels >= bins), or, with a weight, the map x
// that its DPM head is still to be applied to, by the ops above.
struct Prediction {
  Tensor map, weight, bias;

  Prediction(Tensor depth_or_logits) : map(std::move(depth_or_logits)) {}  // implicit: the plain case
  Prediction(Tensor x, Tensor head_weight, Tensor head_bias)
      : map(std::move(x)), weight(std::move(head_weight)), bias(std::move(head_bias)) {}
  bool before_head() const { return weight.defined(); }
};

// ---- depth maps --------------------------------------------------------------------------------------------------
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

}  // namespace depthstill
