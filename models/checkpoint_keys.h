// Published checkpoints name the same tensors differently. This recognises whose names a file has, infers the network
// from names and shapes, and shows the file under our names: those of Depth Anything V2 for the dpt_* and da3* networks
// (`pretrained.*`, `depth_head.*`), of TIE-KD for the U-Nets (`backbone.*`, `decode_head.*`), and of MiDaS for
// midas_small.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/io/weights_file.h"
#include "models/depth_model.h"

namespace depthstill {

enum class KeyFamily : uint8_t {
  kDepthAnything,    // Depth Anything V2, relative and metric; Distill-Any-Depth small and base
  kDistillAnyDepth,  // its large model: `backbone.blocks.0.N.`
  kDepthAnything3,   // its monocular networks, as its authors (now and in training) and LightlyTrain name them
  kHuggingFace,      // transformers' DepthAnythingForDepthEstimation
  kDinoV2,           // torch.hub's encoders, without prefix
  kUnet,             // TIE-KD (OpenMMLab) and our own
  kMobileNetV2,      // ImageNet classifiers of torchvision and OpenMMLab
  kResNet,
  kMidas,
};
const char* name_of(KeyFamily family);

// One of our tensors, and the file's tensors that it is joined from along the first dimension: one, or three for the
// query, key and value of the Hugging Face names.
struct MappedTensor {
  StoredTensor stored;  // under our name
  std::vector<const StoredTensor*> parts;
};

struct KeyMap {
  KeyFamily family = KeyFamily::kDepthAnything;
  std::string dropped_prefix;  // what all names of the file begin with: "module.", "_orig_mod.model.", ...
  std::string architecture;    // "dpt_s", "mobilenet_unet", ...; the first that has same_weights(), or the encoder
  std::vector<int64_t> decoder_widths;  // U-Nets, where they are not those of the architecture
  bool encoder_only = false;            // DINOv2 and the ImageNet classifiers
  bool folded = false;                  // batch norms are folded into the convolutions
  std::vector<MappedTensor> tensors;    // tensors without a name of ours keep their own
};

// A prefix that all names share is dropped if the rest is known. Throws Error, with three of the names, if they are of
// no known family.
KeyMap map_keys(const WeightsFile& file);

// The network of this map is made with these options: its usual head, and bins and widths as the file has them.
ModelOptions options_for(const KeyMap& map);

// A file under our names.
class MappedWeights final : public WeightsFile {
 public:
  explicit MappedWeights(std::unique_ptr<WeightsFile> file);
  const KeyMap& map() const { return map_; }
  void read_bytes(const StoredTensor& tensor, std::span<std::byte> to) const override;

 private:
  std::unique_ptr<WeightsFile> file_;
  KeyMap map_;
};

// Opens a file of weights of any kind and family, and says through the message sink which prefix was dropped.
std::unique_ptr<MappedWeights> open_mapped_weights(const std::string& path);

// A file's tensors against those of a network, one line each.
struct KeyCheck {
  std::vector<std::string> matched, dead;  // names; dead: the network has no use for them, published files hold them
  std::vector<std::string> missing;        // "name (shape)"
  std::vector<std::string> mismatched;     // "name: expected shape (..), found (..)"
  std::vector<std::string> left_over;      // a classifier's head and the like
  std::vector<std::string> unknown;        // "name (shape)"
  bool loads() const { return missing.empty() && mismatched.empty() && unknown.empty(); }
};
KeyCheck check_keys(const KeyMap& map, const DepthModel& student);

}  // namespace depthstill
