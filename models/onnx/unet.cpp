#include "models/mobilenet_v2.h"
#include "models/onnx/layers.h"
#include "models/onnx/networks.h"
#include "models/resnet.h"

namespace depthstill {
namespace {

using namespace onnx_layers;

constexpr const char* kEncoder = "backbone.";
constexpr const char* kDecoder = "decode_head.";

OnnxValue unit(OnnxGraph& graph, const OnnxValue& x, const ConvBn& layer) {
  return conv_bn(graph, x, kEncoder + layer.names.conv, *layer.conv, *layer.bn);
}

OnnxValue units(OnnxGraph& graph, OnnxValue x, const std::vector<const ConvBn*>& layers) {
  for (const ConvBn* layer : layers) x = unit(graph, x, *layer);
  return x;
}

std::vector<OnnxValue> write_mobilenet_v2(OnnxGraph& graph, const MobileNetV2& encoder, const OnnxValue& image) {
  std::vector<OnnxValue> taps;
  OnnxValue x = unit(graph, image, encoder.stem());
  for (const MobileNetV2::Block& block : encoder.blocks()) {
    const OnnxValue y = units(graph, x, block.units);
    x = block.residual ? graph.node("Add", {x, y}) : y;
    if (block.tap) taps.push_back(x);
  }
  return taps;
}

std::vector<OnnxValue> write_resnet(OnnxGraph& graph, const ResNet& encoder, const OnnxValue& image) {
  std::vector<OnnxValue> taps;
  OnnxValue x = unit(graph, image, encoder.stem());
  taps.push_back(x);
  x = graph.node("MaxPool", {x},
                 {{"kernel_shape", OnnxInts{3, 3}}, {"strides", OnnxInts{2, 2}}, {"pads", OnnxInts{1, 1, 1, 1}}});
  for (const ResNet::Block& block : encoder.blocks()) {
    const OnnxValue y = units(graph, x, block.units);
    const OnnxValue shortcut = block.downsample ? unit(graph, x, *block.downsample) : x;
    x = activation(graph, graph.node("Add", {y, shortcut}), Activation::kRelu);
    if (block.last_of_stage) taps.push_back(x);
  }
  return taps;
}

OnnxValue write_decoder(OnnxGraph& graph, const UnetModel& student, const std::vector<OnnxValue>& taps) {
  // Two taps are of the same size for every image if they are for one whose sides are powers of two.
  const std::vector<MapSize> sizes = student.encoder().trace({256, 256}).taps;
  constexpr bool kAlignCorners = true;
  OnnxValue x = taps.back();
  MapSize size = sizes.back();
  for (const UnetDecoder::Step& step : student.decoder().steps()) {
    switch (step.kind) {
      case UnetDecoder::Kind::kConv:
        x = conv(graph, x, kDecoder + step.name, *step.conv);
        break;
      case UnetDecoder::Kind::kJoin:
        if (size != sizes[step.tap]) x = resize_to(graph, x, taps[step.tap], kAlignCorners);
        size = sizes[step.tap];
        x = graph.node("Concat", {x, taps[step.tap]}, {{"axis", int64_t{1}}});
        break;
      case UnetDecoder::Kind::kDouble:
        x = resize_by(graph, x, 2.0f, kAlignCorners);
        break;
    }
  }
  return x;
}

}  // namespace

OnnxValue write_unet(OnnxGraph& graph, const UnetModel& student, const OnnxValue& image) {
  if (const auto* mobilenet = dynamic_cast<const MobileNetV2*>(&student.encoder()))
    return write_decoder(graph, student, write_mobilenet_v2(graph, *mobilenet, image));
  if (const auto* resnet = dynamic_cast<const ResNet*>(&student.encoder()))
    return write_decoder(graph, student, write_resnet(graph, *resnet, image));
  fail("onnx: ", student.name(), " has an encoder that the export does not know");
}

}  // namespace depthstill
