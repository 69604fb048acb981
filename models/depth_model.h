// A depth network, student or teacher: a name, a head, an input rule, and a forward pass.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/map_kind.h"
#include "engine/nn.h"
#include "models/encoder.h"
#include "models/input_rule.h"
#include "models/prediction.h"
#include "models/trained_use.h"

namespace depthstill {

enum class Head : uint8_t {
  kDpm,         // depth probability map: a logit per bin, depth is the mean of the bins' centres under softmax
  kRegression,  // depth = d_max * sigmoid, metres
  kRelative,    // relu: inverse depth up to an unknown scale and shift, larger is nearer
  // exp, of Depth Anything 3, larger is farther:
  kRelativeDepth,   // depth up to an unknown scale and shift
  kCanonicalDepth,  // depth in metres as a focal length of kCanonicalFocal pixels shows it: metres = depth * f / 300
};
inline constexpr double kCanonicalFocal = 300;  // pixels of the network's input (Depth Anything 3, README)
const char* name_of(Head head);                 // "dpm", "regression", "relative", "relative_depth", "canonical_depth"
Head parse_head(std::string_view text);         // throws Error
// What a network with this head predicts; kCanonicalDepth: where the focal length is not known.
MapKind kind_of(Head head);
inline bool is_exponential(Head head) { return head == Head::kRelativeDepth || head == Head::kCanonicalDepth; }

struct ModelOptions {
  Head head = Head::kDpm;
  int64_t bins = 257;   // kDpm: uniform bins over [d_min, d_max]
  float d_min = 1e-3f;  // metres
  float d_max = 80.0f;  // metres; kRegression: depth = d_max * sigmoid
  // U-Nets: channels of the decoder at each of the encoder's taps, shallow to deep; empty: those of the table's row.
  std::vector<int64_t> decoder_widths = {};
};

// A ModelFamily is a kind of network: models/onnx has a writer for each.
enum class ModelFamily : uint8_t { kUnet, kDepthAnything, kMidasSmall };

// What the names of the parameters of a network's two parts begin with.
struct NetworkParts {
  const char *encoder, *head;
};

class DepthModel : public Module {
 public:
  // image: normalised RGB (N, H, W, 3), fp32 or bf16; activations are of that type. H and W are multiples of
  // size_multiple(). Returns rows [first_needed_row, H): after the last activation, or depth bins (kDpm). A loss over
  // rows [r, H) and its gradients are the same for any first_needed_row <= r.
  Prediction forward(const Tensor& image, int64_t first_needed_row = 0) const;
  // The same with the features that the encoder ends in: the last tap of a DINOv2, after its norm. Throws Error for a
  // network without tokens.
  Prediction forward_with_features(const Tensor& image) const;
  // The same before the last activation: (N, rows, W, bins or 1), of the image's type but where a head ends in fp32.
  Tensor forward_raw(const Tensor& image, int64_t first_needed_row = 0) const;

  // kDpm: the bins, and the head; it is undefined otherwise.
  DpmBins bins() const { return {static_cast<int>(options_.bins), options_.d_min, options_.d_max}; }
  virtual DpmHead dpm_head() const { return {}; }

  // Random weights for a new student. Each parameter has its own random stream, so none depends on the others.
  virtual void initialize(uint64_t seed) = 0;
  // The ImageNet encoder that load_imagenet() fills; null if the network has none.
  virtual Encoder* imagenet_encoder() { return nullptr; }
  virtual NetworkParts parts() const = 0;
  // Multiply-adds per image, in units of 1e9.
  virtual double gmac(int64_t height, int64_t width) const = 0;
  // Parameters that the published code builds and never runs: they are in its checkpoints and counts, not in ours.
  struct DeadParameter {
    std::string name;
    Shape file_shape;
  };
  virtual std::vector<DeadParameter> dead_parameters() const { return {}; }

  virtual ModelFamily family() const = 0;
  const std::string& name() const { return name_; }
  const ModelOptions& options() const { return options_; }
  const InputRule& input_rule() const { return input_rule_; }
  // The use that weights or a training state; none for a published network, whose use is its input rule.
  const std::optional<TrainedUse>& trained_use() const { return trained_use_; }
  void set_trained_use(const std::optional<TrainedUse>& use) { trained_use_ = use; }
  int64_t size_multiple() const { return input_rule_.multiple; }
  // The count includes the dead parameters; parameter_count() is what is executed and trained.
  int64_t reference_parameter_count() const;
  std::vector<std::string> dead_parameter_names() const;

 protected:
  DepthModel(std::string name, const ModelOptions& options, const InputRule& input_rule);
  // What a network gives beside its depth. Pointers that are not null are set by a network that has it.
  struct Extras {
    Tensor* features = nullptr;  // as Prediction has them
    Tensor* sky = nullptr;       // (N, rows, W, 1) fp32
  };
  // Takes a checked image and returns what forward_raw() returns, but for kDpm what dpm_head() reads. A relative head
  // goes on to the activation `last` and ends in fp32.
  virtual Tensor run(const Tensor& image, int64_t first_needed_row, Activation last, const Extras& extras) const = 0;
  // The initial weights of this layer, which ends a head, are made positive if that one is relative: over a map of
  // ReLUs its own ReLU is then open, where a map below 0 would never learn.
  void start_above_zero(const Conv2d& output) const;

 private:
  void check_image(const Tensor& image) const;
  Prediction predict(const Tensor& image, int64_t first_needed_row, Tensor* features) const;

  std::string name_;
  ModelOptions options_;
  InputRule input_rule_;
  std::optional<TrainedUse> trained_use_;
};

}  // namespace depthstill
