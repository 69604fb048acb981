// What the tools know of a depth network: a name, a head, an input rule, and a forward pass.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/nn.h"
#include "engine/ops_loss.h"
#include "models/encoder.h"
#include "models/input_rule.h"

namespace depthstill {

enum class Head : uint8_t {
  kDpm,         // depth probability map: a logit per bin, depth is the mean of the bins' centres under softmax
  kRegression,  // depth = d_max * sigmoid, metres
  kRelative,    // relu: inverse depth up to an unknown scale and shift, larger is nearer
};
const char* name_of(Head head);          // "dpm", "regression", "relative"
Head parse_head(std::string_view text);  // throws Error

struct ModelOptions {
  Head head = Head::kDpm;
  int64_t bins = 257;   // kDpm: uniform bins over [d_min, d_max]
  float d_min = 1e-3f;  // metres
  float d_max = 80.0f;  // metres; kRegression: depth = d_max * sigmoid
};

class DepthModel : public Module {
 public:
  // Normalised RGB (N, H, W, 3), fp32 or bf16; activations are of that type. H and W are multiples of
  // size_multiple(). Returns rows [first_needed_row, H) before the last activation: (N, rows, W, bins or 1), of the
  // image's type; on a GPU there may be channels past the bins, which mean nothing. A loss over rows [r, H) and its
  // gradients are the same for any first_needed_row <= r.
  Tensor forward_raw(const Tensor& image, int64_t first_needed_row = 0) const;
  // The same after it:
  //   kDpm                    logits (N, rows, W, at least bins) of the image's type
  //   kRegression, kRelative  (N, rows, W) fp32
  Tensor forward(const Tensor& image, int64_t first_needed_row = 0) const;
  // The same with a DPM head left to the loss, or to depth_of(), where they can apply it without storing logits: less
  // memory, and in prediction less time. In fp32 on the CPU the same depth to the last bit.
  Prediction forward_before_head(const Tensor& image, int64_t first_needed_row = 0) const;
  // Depth (N, rows, W), metres, or for kRelative inverse depth.
  Tensor depth_of(const Prediction& output) const;
  // The DPM head by itself, for whoever times it. What its 1x1 convolution reads: a map (N, rows, W, C) of the image's
  // size, as the activation below leaves it.
  struct HeadInput {
    int64_t channels = 0;  // C; 0: there is no such head
    Activation activation = Activation::kNone;
  };
  virtual HeadInput head_input() const { return {}; }
  // From there on as forward_before_head() does, if `fused`, or as forward().
  virtual Prediction apply_head(const Tensor& x, bool fused) const;
  DpmBins bins() const { return {static_cast<int>(options_.bins), options_.d_min, options_.d_max}; }  // kDpm

  // Random weights for a new student. Each parameter has its own random stream, so none depends on the others.
  virtual void initialize(uint64_t seed) = 0;
  // The ImageNet encoder that load_imagenet() fills; null if the network has none.
  virtual Encoder* imagenet_encoder() { return nullptr; }
  // Multiply-adds per image, in units of 1e9.
  virtual double gmac(int64_t height, int64_t width) const = 0;
  // Parameters that the published code builds and never runs: in its checkpoints and counts, not in ours.
  struct DeadParameter {
    std::string name;
    Shape file_shape;
  };
  virtual std::vector<DeadParameter> dead_parameters() const { return {}; }

  const std::string& name() const { return name_; }
  const ModelOptions& options() const { return options_; }
  const InputRule& input_rule() const { return input_rule_; }
  int64_t size_multiple() const { return input_rule_.multiple; }
  // With the dead ones; parameter_count() is what is executed and trained.
  int64_t reference_parameter_count() const;
  std::vector<std::string> dead_parameter_names() const;

 protected:
  DepthModel(std::string name, const ModelOptions& options, const InputRule& input_rule);
  virtual Tensor run(const Tensor& image, int64_t first_needed_row) const = 0;  // forward_raw of a checked image
  virtual Prediction run_before_head(const Tensor& image, int64_t first_needed_row) const {  // kDpm
    return run(image, first_needed_row);
  }

 private:
  void check_image(const Tensor& image) const;

  std::string name_;
  ModelOptions options_;
  InputRule input_rule_;
};

std::vector<std::string> model_names();  // "mobilenet_unet", "resnet18_unet", "dpt_s", ...

// The head that a published network of this name has.
Head default_head(std::string_view name);

// Parameters are zero (batch norm: one) until initialize() or a checkpoint sets them.
std::unique_ptr<DepthModel> make_model(std::string_view name, const ModelOptions& options);

}  // namespace depthstill
