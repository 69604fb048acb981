// Our layers as ONNX nodes on (N, C, H, W). Batch norms are folded into the convolution before them, in double.
#pragma once

#include <map>
#include <string>

#include "models/onnx/graph.h"

namespace depthstill::onnx_layers {

// The names of a module's weights, by which the file has them too.
class Names {
 public:
  explicit Names(const Module& module);
  // The name comes without ".weight" or ".bias".
  const std::string& of(const Convolution& layer) const;

 private:
  std::map<const void*, std::string> by_weight_;
};

// `name` is that of the layer's state: its weights are stored under it, in PyTorch's element order.
OnnxValue conv(OnnxGraph& graph, const OnnxValue& x, const std::string& name, const Conv2d& layer);
OnnxValue conv_bn(OnnxGraph& graph, const OnnxValue& x, const std::string& name, const Convolution& layer,
                  const BatchNorm2d& bn);
OnnxValue activation(OnnxGraph& graph, const OnnxValue& x, Activation kind);

// Resizes bilinearly, to the height and width that `like` has when the model runs, or by a factor.
OnnxValue resize_to(OnnxGraph& graph, const OnnxValue& x, const OnnxValue& like, bool align_corners);
OnnxValue resize_by(OnnxGraph& graph, const OnnxValue& x, float factor, bool align_corners);

// The tensor as a constant, in PyTorch's element order.
OnnxValue parameter(OnnxGraph& graph, const std::string& name, const Tensor& value, Layout layout = Layout::kPlain);

}  // namespace depthstill::onnx_layers
