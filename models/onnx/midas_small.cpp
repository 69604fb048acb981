#include "models/midas_small.h"

#include "models/onnx/layers.h"
#include "models/onnx/networks.h"

namespace depthstill {
namespace {

using namespace onnx_layers;

// x + conv(relu(conv(relu(x)))); the first convolution applies the inner ReLU.
OnnxValue residual_unit(OnnxGraph& graph, const OnnxValue& x, const Names& names, const Conv2d* const (&convs)[2]) {
  OnnxValue y = activation(graph, x, Activation::kRelu);
  for (const Conv2d* layer : convs) y = conv(graph, y, names.of(*layer), *layer);
  return graph.node("Add", {x, y});
}

std::vector<OnnxValue> encode(OnnxGraph& graph, const MidasSmall& student, const Names& names, const OnnxValue& image) {
  const auto unit = [&](const OnnxValue& x, const MidasSmall::Unit& layer) {
    return conv_bn(graph, x, names.of(*layer.conv), *layer.conv, *layer.norm);
  };
  std::vector<OnnxValue> taps;
  OnnxValue x = unit(image, student.stem());
  for (const MidasSmall::Block& block : student.blocks()) {
    OnnxValue y = x;
    for (const MidasSmall::Unit& layer : block.units) y = unit(y, layer);
    x = block.residual ? graph.node("Add", {x, y}) : y;
    if (block.tap) taps.push_back(x);
  }
  return taps;
}

}  // namespace

OnnxValue write_midas_small(OnnxGraph& graph, const MidasSmall& student, const OnnxValue& image) {
  const Names names(student);
  const auto add_conv = [&](const OnnxValue& x, const Conv2d& layer) { return conv(graph, x, names.of(layer), layer); };
  const std::vector<OnnxValue> taps = encode(graph, student, names, image);
  OnnxValue path;
  for (size_t k = taps.size(); k-- > 0;) {
    const MidasSmall::Fusion& fusion = student.fusions()[k];
    OnnxValue x = add_conv(taps[k], *student.tap_convs()[k]);
    if (!path.empty()) x = graph.node("Add", {path, residual_unit(graph, x, names, fusion.residual1)});
    x = residual_unit(graph, x, names, fusion.residual2);
    path = add_conv(resize_by(graph, x, 2.0f, true), *fusion.out);
  }
  const OnnxValue y = resize_by(graph, add_conv(path, student.head(0)), 2.0f, false);
  return add_conv(add_conv(y, student.head(1)), student.head(2));
}

}  // namespace depthstill
