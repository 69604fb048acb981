#include "models/onnx/layers.h"

#include <cmath>

namespace depthstill::onnx_layers {
namespace {

// Copies a tensor to the CPU, in PyTorch's element order.
Tensor file_form(const Tensor& value, Layout layout) {
  return to_file_layout(to_device(value.detach(), Device::kCpu), layout);
}

OnnxValue conv_node(OnnxGraph& graph, const std::vector<OnnxValue>& inputs, const ConvGeometry& geometry,
                    const Shape& weight) {
  std::vector<OnnxAttribute> attributes = {
      {"kernel_shape", OnnxInts{weight[2], weight[3]}},
      {"strides", OnnxInts{geometry.stride, geometry.stride}},
      {"dilations", OnnxInts{geometry.dilation, geometry.dilation}},
      {"group", geometry.layout == Layout::kDepthwise ? weight[0] : int64_t{1}},
  };
  if (geometry.padding == Padding::kEqual) {
    const int64_t rows = geometry.dilation * (weight[2] - 1) / 2, columns = geometry.dilation * (weight[3] - 1) / 2;
    attributes.push_back({"pads", OnnxInts{rows, columns, rows, columns}});
  } else {
    attributes.push_back({"auto_pad", std::string("SAME_UPPER")});  // depends on the image's size
  }
  return graph.node("Conv", inputs, attributes);
}

OnnxValue resize(OnnxGraph& graph, std::vector<OnnxValue> inputs, bool align_corners) {
  return graph.node("Resize", inputs,
                    {{"mode", std::string("linear")},
                     {"coordinate_transformation_mode", std::string(align_corners ? "align_corners" : "half_pixel")}});
}

}  // namespace

Names::Names(const Module& module) {
  const std::string last = ".weight";
  for (const StateEntry& entry : module.state()) {
    if (entry.name.ends_with(last))
      by_weight_[entry.tensor->raw()] = entry.name.substr(0, entry.name.size() - last.size());
  }
}

const std::string& Names::of(const Convolution& layer) const {
  const auto found = by_weight_.find(layer.weight.raw());
  check(found != by_weight_.end(), "onnx: a convolution that is not of this module");
  return found->second;
}

OnnxValue parameter(OnnxGraph& graph, const std::string& name, const Tensor& value, Layout layout) {
  const Tensor file = file_form(value, layout);
  return graph.constant(name, file.shape(), {file.data<float>(), static_cast<size_t>(file.numel())});
}

OnnxValue conv(OnnxGraph& graph, const OnnxValue& x, const std::string& name, const Conv2d& layer) {
  const ConvGeometry geometry = layer.geometry();
  std::vector<OnnxValue> inputs{x, parameter(graph, name + ".weight", layer.weight, geometry.layout)};
  if (layer.bias.defined()) inputs.push_back(parameter(graph, name + ".bias", layer.bias));
  const OnnxValue y = conv_node(graph, inputs, geometry, to_file_shape(layer.weight.shape(), geometry.layout));
  return activation(graph, y, layer.config().activation);
}

OnnxValue conv_bn(OnnxGraph& graph, const OnnxValue& x, const std::string& name, const Convolution& layer,
                  const BatchNorm2d& bn) {
  const ConvGeometry geometry = layer.geometry();
  const Shape shape = to_file_shape(layer.weight.shape(), geometry.layout);
  std::vector<float> weight = to_vector<float>(file_form(layer.weight, geometry.layout));
  const std::vector<float> gamma = to_vector<float>(bn.weight), beta = to_vector<float>(bn.bias),
                           mean = to_vector<float>(bn.running_mean), var = to_vector<float>(bn.running_var);
  std::vector<float> bias(gamma.size());
  const size_t per_channel = weight.size() / gamma.size();
  for (size_t c = 0; c < gamma.size(); ++c) {
    const double slope = gamma[c] / std::sqrt(static_cast<double>(var[c]) + bn.eps());
    for (size_t i = c * per_channel; i < (c + 1) * per_channel; ++i) weight[i] = static_cast<float>(weight[i] * slope);
    bias[c] = static_cast<float>(beta[c] - mean[c] * slope);
  }
  const OnnxValue y = conv_node(graph,
                                {x, graph.constant(name + ".weight", shape, weight),
                                 graph.constant(name + ".bias", {static_cast<int64_t>(bias.size())}, bias)},
                                geometry, shape);
  return activation(graph, y, bn.activation());
}

OnnxValue activation(OnnxGraph& graph, const OnnxValue& x, Activation kind) {
  switch (kind) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return graph.node("Relu", {x});
    case Activation::kRelu6:
      return graph.node("Clip", {x, graph.scalar(0.0f), graph.scalar(6.0f)});
    case Activation::kSigmoid:
      return graph.node("Sigmoid", {x});
  }
  fail("onnx: an activation that the export does not know");
}

OnnxValue resize_to(OnnxGraph& graph, const OnnxValue& x, const OnnxValue& like, bool align_corners) {
  const OnnxValue images_and_channels = graph.node("Shape", {x}, {{"end", int64_t{2}}});
  const OnnxValue size = graph.node("Shape", {like}, {{"start", int64_t{2}}});
  const OnnxValue sizes = graph.node("Concat", {images_and_channels, size}, {{"axis", int64_t{0}}});
  return resize(graph, {x, "", "", sizes}, align_corners);
}

OnnxValue resize_by(OnnxGraph& graph, const OnnxValue& x, float factor, bool align_corners) {
  return resize(graph, {x, "", graph.floats({1.0f, 1.0f, factor, factor})}, align_corners);
}

}  // namespace depthstill::onnx_layers
