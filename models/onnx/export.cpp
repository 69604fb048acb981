#include "models/onnx/export.h"

#include <limits>

#include "kernels/dpm/dpm_target.h"
#include "kernels/preprocess.h"
#include "models/onnx/layers.h"
#include "models/onnx/networks.h"

namespace depthstill {
namespace {

using Output = OnnxOptions::Output;

NetworkOutputs write_network(OnnxGraph& graph, const DepthModel& student, const OnnxValue& image,
                             const std::optional<MapSize>& size) {
  switch (student.family()) {
    case ModelFamily::kUnet:
      return {write_unet(graph, static_cast<const UnetModel&>(student), image), {}};
    case ModelFamily::kMidasSmall:
      return {write_midas_small(graph, static_cast<const MidasSmall&>(student), image), {}};
    case ModelFamily::kDepthAnything:
      check(size.has_value(), "onnx: ", student.name(), " is exported for one image size: give its height and width");
      return write_depth_anything(graph, static_cast<const DepthAnything&>(student), image, *size);
  }
  fail("onnx: a ", student.name(), " cannot be exported");
}

OnnxValue normalise(OnnxGraph& graph, const OnnxValue& image) {
  const OnnxValue centred = graph.node("Sub", {image, graph.constant("image_mean", {1, 3, 1, 1}, kImageMean)});
  return graph.node("Div", {centred, graph.constant("image_std", {1, 3, 1, 1}, kImageStd)});
}

// Depth is the mean of the bins' centres under softmax. Channels come last, because softmax wants the bins side by
// side.
OnnxValue expected_depth(OnnxGraph& graph, const OnnxValue& logits, const ModelOptions& options) {
  const DpmBins bins{static_cast<int>(options.bins), options.d_min, options.d_max};
  std::vector<float> centres;
  for (int i = 0; i < bins.bins; ++i) centres.push_back(static_cast<float>(bins.centre(i)));
  const OnnxValue last = graph.node("Transpose", {logits}, {{"perm", OnnxInts{0, 2, 3, 1}}});
  const OnnxValue probability = graph.node("Softmax", {last}, {{"axis", int64_t{-1}}});
  const OnnxValue depth = graph.node("MatMul", {probability, graph.constant("bin_centres", {bins.bins, 1}, centres)});
  return graph.node("Squeeze", {depth, graph.integers({3})});
}

// (N, bins or 1, H, W) -> (N, H, W).
OnnxValue last_activation(OnnxGraph& graph, const OnnxValue& raw, const ModelOptions& options) {
  if (options.head == Head::kDpm) return expected_depth(graph, raw, options);
  const OnnxValue map = graph.node("Squeeze", {raw, graph.integers({1})});
  if (is_exponential(options.head)) return graph.node("Exp", {map});
  if (options.head == Head::kRelative) return onnx_layers::activation(graph, map, Activation::kRelu);
  return graph.node("Mul", {onnx_layers::activation(graph, map, Activation::kSigmoid), graph.scalar(options.d_max)});
}

std::string exact(float value) {
  std::ostringstream text;
  text.precision(std::numeric_limits<float>::max_digits10);
  text << value;
  return text.str();
}

std::string output_text(Head head) {
  if (head == Head::kRelative) return name_of(kind_of(head)) + ", larger is nearer";
  if (head == Head::kRelativeDepth) return name_of(kind_of(head)) + ", larger is farther";
  if (head == Head::kCanonicalDepth) {
    return concat_text("depth in metres times ", kCanonicalFocal, " / focal length in pixels of the input");
  }
  return name_of(kind_of(head));
}

void describe(OnnxGraph& graph, const DepthModel& student, const OnnxOptions& options) {
  const ModelOptions& model = student.options();
  std::map<std::string, std::string> metadata = options.metadata;
  metadata["architecture"] = student.name();
  metadata["head"] = name_of(model.head);
  if (model.head == Head::kDpm) metadata["bins"] = std::to_string(model.bins);
  if (kind_of(model.head) == kMetricDepth) {
    metadata["d_min"] = exact(model.d_min);
    metadata["d_max"] = exact(model.d_max);
  }
  metadata["input"] = options.normalise ? "RGB 0..255, N x 3 x H x W"
                                        : "RGB, N x 3 x H x W, (pixel - mean) / std with mean 123.675 116.28 103.53, "
                                          "std 58.395 57.12 57.375 of pixels 0..255";
  metadata["output"] = options.output == Output::kRaw ? "before the last activation" : output_text(model.head);
  metadata["size_multiple"] = std::to_string(student.size_multiple());
  metadata["depthstill_version"] = options.version;
  for (const auto& [key, value] : metadata) graph.set_metadata(key, value);
  graph.set_producer("depthstill", options.version);
}

}  // namespace

void export_onnx(const DepthModel& student, const std::string& path, const OnnxOptions& options) {
  OnnxDim height = "height", width = "width";
  if (options.size) {
    const int64_t multiple = student.size_multiple();
    check(options.size->height > 0 && options.size->width > 0 && options.size->height % multiple == 0 &&
              options.size->width % multiple == 0,
          "onnx: ", student.name(), ": expected height and width to be multiples of ", multiple, ", got ",
          options.size->height, " x ", options.size->width);
    height = options.size->height;
    width = options.size->width;
  }
  OnnxGraph graph(student.name());
  const OnnxValue image = graph.input("image", {"batch", int64_t{3}, height, width});
  const auto [raw, sky] =
      write_network(graph, student, options.normalise ? normalise(graph, image) : image, options.size);
  const ModelOptions& model = student.options();
  if (options.output == Output::kRaw) {
    graph.output(raw, "raw", {"batch", model.head == Head::kDpm ? model.bins : int64_t{1}, height, width});
  } else {
    graph.output(last_activation(graph, raw, model),
                 kind_of(model.head).quantity == Quantity::kInverseDepth ? "inverse_depth" : "depth",
                 {"batch", height, width});
  }
  if (!sky.empty()) {
    graph.output(graph.node("Squeeze", {sky, graph.integers({1})}), "sky", {"batch", height, width});
  }
  describe(graph, student, options);
  graph.write(path);
}

}  // namespace depthstill
