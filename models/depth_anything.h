// Depth Anything V2 (Yang et al. 2024): a DINOv2 encoder with the DPT head, keys as in the published checkpoints.
// Relative: inverse depth up to scale and shift; metric: sigmoid x d_max.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "models/depth_model.h"
#include "models/dinov2.h"
#include "models/dpt_head.h"

namespace depthstill {

struct DepthAnythingConfig {
  VitConfig encoder;
  DptConfig head;
};

class DepthAnything final : public DepthModel {
 public:
  static constexpr InputRule kInputRule{InputRule::Fit::kLowerBound, 518, DinoV2::kPatch};
  // The published sizes stand in models/model_table.cpp. Heads: relative or regression.
  DepthAnything(std::string_view name, const DepthAnythingConfig& config, const ModelOptions& options);

  // Transformer: normal with deviation 0.02, zero biases, norms and layer scales one. Patches and head: PyTorch's
  // default for convolutions.
  void initialize(uint64_t seed) override;
  ModelFamily family() const override { return ModelFamily::kDepthAnything; }
  NetworkParts parts() const override { return {"pretrained.", "depth_head."}; }
  double gmac(int64_t height, int64_t width) const override;
  std::vector<DeadParameter> dead_parameters() const override;

  const DinoV2& encoder() const { return encoder_; }
  const DptHead& head() const { return head_; }

 protected:
  Tensor run(const Tensor& image, int64_t first_needed_row, Activation last, Tensor* features) const override;

 private:
  DinoV2 encoder_;
  DptHead head_;
};

}  // namespace depthstill
