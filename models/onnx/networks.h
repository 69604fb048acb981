// One writer per kind of student: its network from the image (N, 3, H, W) to the output before the last activation,
// (N, bins or 1, H, W). They walk the layers that the network itself runs.
#pragma once

#include "models/depth_anything.h"
#include "models/midas_small.h"
#include "models/onnx/graph.h"
#include "models/unet.h"

namespace depthstill {

struct NetworkOutputs {
  OnnxValue raw;
  OnnxValue sky;  // (N, 1, H, W), behind its activation; empty: the network does not look for it
};

OnnxValue write_unet(OnnxGraph& graph, const UnetModel& student, const OnnxValue& image);
OnnxValue write_midas_small(OnnxGraph& graph, const MidasSmall& student, const OnnxValue& image);
// The network takes images of this size only.
NetworkOutputs write_depth_anything(OnnxGraph& graph, const DepthAnything& student, const OnnxValue& image,
                                    MapSize size);

}  // namespace depthstill
