// Depth Anything V2 (Yang et al. 2024): a DINOv2 encoder with the DPT head, keys as in the published checkpoints.
// Relative: inverse depth up to scale and shift; metric: sigmoid x d_max. The monocular networks of Depth Anything 3
// (Lin et al. 2025) are the same with a sky branch, and give depth: exp.
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

  bool looks_for_sky() const { return head.sky != SkyBranch::kNone; }  // Depth Anything 3
  bool operator==(const DepthAnythingConfig&) const = default;
};

class DepthAnything final : public DepthModel {
 public:
  static InputRule input_rule_of(const DepthAnythingConfig& config);
  // The published sizes stand in models/model_table.cpp. Heads: relative or regression; with a sky branch
  // relative_depth or canonical_depth.
  DepthAnything(std::string_view name, const DepthAnythingConfig& config, const ModelOptions& options);

  // Transformer: normal with deviation 0.02, zero biases, norms and layer scales one. Patches and head: PyTorch's
  // default for convolutions.
  void initialize(uint64_t seed) override;
  ModelFamily family() const override { return ModelFamily::kDepthAnything; }
  NetworkParts parts() const override { return {"pretrained.", "depth_head."}; }
  double gmac(int64_t height, int64_t width) const override;
  // With a sky branch the mask token alone, which files of LightlyTrain hold, and those of the authors do not.
  std::vector<DeadParameter> dead_parameters() const override;

  const DinoV2& encoder() const { return encoder_; }
  const DptHead& head() const { return head_; }

 protected:
  Tensor run(const Tensor& image, int64_t first_needed_row, Activation last, const Extras& extras) const override;

 private:
  DinoV2 encoder_;
  DptHead head_;
};

}  // namespace depthstill
