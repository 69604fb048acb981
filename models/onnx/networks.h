// One writer per kind of student: its network from the image (N, 3, H, W) to the output before the last activation,
// (N, bins or 1, H, W). They walk the layers that the network itself runs.
#pragma once

#include "models/onnx/graph.h"
#include "models/unet_student.h"

namespace depthstill {

OnnxValue write_unet(OnnxGraph& graph, const UnetStudent& student, const OnnxValue& image);

}  // namespace depthstill
