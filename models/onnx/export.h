// A student as an ONNX file (opset 17): its function in eval mode, fp32, with the weights inside.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "models/depth_model.h"

namespace depthstill {

struct OnnxOptions {
  enum class Output : uint8_t {
    kDepth,  // output of the last activation, (N, H, W): what the head says (models/depth_model.h)
    kRaw,    // input of the last activation, (N, bins or 1, H, W)
  };
  Output output = Output::kDepth;
  // Puts (pixel - mean) / std of ImageNet inside: the model is then fed RGB 0..255.
  bool normalise = false;
  // Unset, height and width are dynamic, both multiples of the student's size_multiple(). Depth Anything needs a size.
  std::optional<MapSize> size = {};
  // These entries are stored beside the description of the model and its input.
  std::map<std::string, std::string> metadata = {};
  std::string version = {};  // version of the program
};

// Input "image" (N, 3, H, W) fp32, RGB; output "depth", "inverse_depth" or "raw", and "sky" (N, H, W) of a
// network that looks for it; N is dynamic. Throws Error if this build has no ONNX, if the student cannot take the size,
// or if the file would exceed protobuf's 2 GiB.
void export_onnx(const DepthModel& student, const std::string& path, const OnnxOptions& options = {});

}  // namespace depthstill
