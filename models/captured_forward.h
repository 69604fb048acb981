// A network's depth maps of images that often have the same size: on CUDA, from the fourth image of a size on, as one
// CUDA graph, since with a single image the host takes longer to launch a network than the device to run it
// (engine/captured_step.h).
#pragma once

#include <optional>

#include "engine/captured_step.h"
#include "models/depth_model.h"

namespace depthstill {

class CapturedForward {
 public:
  struct Options {
    Device device = Device::kCpu;
    bool graph = false;  // false: every image is run as it is. A device has one captured step or forward at a time.
    DpmHeadWay head = DpmHeadWay::kFused;
    CapturedStep::Log note = [](const std::string&) {};  // told once if a graph cannot be captured
  };
  // The model must be in eval mode and on the device; it is not owned. Its weights may change between calls, but must
  // stay where they are.
  CapturedForward(const DepthModel& model, Options options);

  // image (N, H, W, 3) on the device. Returns the depth (N, H, W) as depth_of() gives it, as the prediction's map, and
  // its sky; the next call overwrites both. Another size or type begins anew.
  Prediction operator()(const Tensor& image);

  bool captured() const { return step_ && step_->captured(); }

 private:
  Prediction maps(const Tensor& image) const;

  const DepthModel& model_;
  Options options_;
  Tensor image_, depth_, sky_;  // at fixed addresses, for the graph
  std::optional<CapturedStep> step_;
};

}  // namespace depthstill
