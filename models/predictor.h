// The depth of one image by a network: bring it to the network's size, normalise, run, undo; optionally averaged with
// the mirrored image (the reference's protocol). Each pass is clamped before averaging.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/device.h"
#include "engine/dtype.h"
#include "engine/io/image.h"
#include "engine/io/map_file.h"
#include "models/depth_model.h"

namespace depthstill {

inline constexpr int kMaxNetworkSide = 8192;  // pixels

struct PredictOptions {
  bool flip = true;
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;  // type of the activations
  // The model's input rule decides what the network is given. A training that resized its images (trained_use())
  // replaces the rule: images are resized as there and padded to the network's multiple; the depth map is resized back
  // bilinearly. A `side` that is not 0 replaces both: the size of a rule that has one, else the pixels of the image's
  // shorter side, aspect kept. A training on squares says such a side, too.
  int side = 0;
  // Depth Anything 3's depth is given as a label for students of inverse depth (to_sky_label, models/sky_rule.h)
  // instead of depth whose sky is filled (fill_sky). Nothing changes for other networks.
  bool labels = false;
  // On CUDA, networks run as one graph once images of a size have come three times (captured_forward.h). Not beside
  // training steps on the same device.
  bool graph = false;
  std::function<void(const std::string& line)> note = [](const std::string&) {};  // told why a graph is not possible
};

class CapturedForward;

class Predictor {
 public:
  // The model must be in eval mode and on the device; it is not owned and may be trained between calls.
  Predictor(const DepthModel& model, const PredictOptions& options);
  ~Predictor();

  // The map has the image's size, and is of kind(focal): metres within the model's depth range (a canonical
  // head has none), or what a relative head gives, >= 0; labels that know nothing are NaN everywhere. `focal`: of the
  // image, in its pixels; 0: not known. Throws Error, beginning with `name`, if the network's map has a value that is
  // NaN or infinite, or if the network would see a side beyond kMaxNetworkSide; OutOfMemory, likewise, where memory
  // does not suffice.
  DepthMap operator()(const Image8& image, const std::string& name = "image", double focal = 0) const;
  MapKind kind(double focal) const;
  // Whether maps are in metres only where the focal length is known.
  bool needs_focal() const { return kind(0) != kind(kCanonicalFocal); }
  // Throws Error "WHERE: ..." if metres need a focal length and this is none.
  void check_focal(double focal, const std::string& where) const;
  // Whether maps are labels in which 0 is the sky, whatever their scale.
  bool marks_sky() const { return options_.labels && is_exponential(model_.options().head); }
  bool relative() const { return kind(kCanonicalFocal).ambiguity != Ambiguity::kNone; }

 private:
  // An Input says at what size the network sees an image, and which rule brings it there and back; none: resized.
  struct Input {
    std::optional<InputRule> rule;
    ImageSize size;
  };
  Input input_for(ImageSize image) const;
  DepthMap run(const Image8& image, const Input& input, const std::string& name) const;
  // A checked map at the size the network is given, without padding.
  DepthMap run_once(const Image8& image, const Input& input, const std::string& name) const;
  DepthMap run_network(const Tensor& image, ImageSize kept,
                       const std::string& name) const;  // rows and columns [0, kept)
  DepthMap kept_part(const Tensor& map, ImageSize kept, const std::string& name) const;

  const DepthModel& model_;
  PredictOptions options_;
  std::unique_ptr<CapturedForward> forward_;
};

}  // namespace depthstill
