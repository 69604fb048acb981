// DINOv2 + DPT for one image size: the positions are interpolated here, once.
#include "models/depth_anything.h"

#include <cmath>

#include "models/onnx/layers.h"
#include "models/onnx/networks.h"

namespace depthstill {
namespace {

using namespace onnx_layers;

constexpr int64_t kTokenAxis = 1;
constexpr float kNormEps = 1e-6f;

// The network's weights by name.
class Writer {
 public:
  Writer(OnnxGraph& graph, const DepthAnything& student, MapSize image)
      : graph_(graph),
        student_(student),
        config_(student.encoder().config()),
        height_(image.height / DinoV2::kPatch),
        width_(image.width / DinoV2::kPatch) {
    for (const StateEntry& entry : student.state()) state_.emplace(entry.name, entry);
  }

  NetworkOutputs write(const OnnxValue& image) { return head(taps(image)); }

 private:
  Tensor value(const std::string& name) const {
    const auto found = state_.find(name);
    check(found != state_.end(), "onnx: ", student_.name(), " has no ", name);
    return to_file_layout(to_device(found->second.tensor->detach(), Device::kCpu), found->second.layout);
  }
  std::vector<float> values(const std::string& name) const { return to_vector<float>(value(name)); }
  bool has(const std::string& name) const { return state_.contains(name); }

  OnnxValue conv(const OnnxValue& x, const std::string& name, int64_t stride = 1, bool padded = true) {
    const Tensor weight = value(name + ".weight");
    const int64_t kernel = weight.size(2), pad = padded ? (kernel - 1) / 2 : 0;
    return conv_like("Conv", x, name, kernel, stride, pad);
  }
  // The kernel has the size of its stride.
  OnnxValue conv_transpose(const OnnxValue& x, const std::string& name) {
    const int64_t kernel = value(name + ".weight").size(2);
    return conv_like("ConvTranspose", x, name, kernel, kernel, 0);
  }
  OnnxValue conv_like(const std::string& op, const OnnxValue& x, const std::string& name, int64_t kernel,
                      int64_t stride, int64_t pad) {
    std::vector<OnnxValue> inputs{x, parameter(graph_, name + ".weight", value(name + ".weight"))};
    if (has(name + ".bias")) inputs.push_back(parameter(graph_, name + ".bias", value(name + ".bias")));
    return graph_.node(op, inputs,
                       {{"kernel_shape", OnnxInts{kernel, kernel}},
                        {"strides", OnnxInts{stride, stride}},
                        {"pads", OnnxInts{pad, pad, pad, pad}}});
  }

  // Rows [first, first + rows) of a linear layer's weight, stored transposed as `stored`; row r is multiplied by
  // factor(r).
  template <class F>
  OnnxValue linear(const OnnxValue& x, const std::string& name, const std::string& stored, int64_t first, int64_t rows,
                   F factor) {
    const std::vector<float> weight = values(name + ".weight"), bias = values(name + ".bias");
    const int64_t in = static_cast<int64_t>(weight.size() / bias.size());
    std::vector<float> w(static_cast<size_t>(in * rows)), b(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = static_cast<size_t>(first + r);
      b[static_cast<size_t>(r)] = bias[row] * factor(r);
      for (int64_t i = 0; i < in; ++i)
        w[static_cast<size_t>(i * rows + r)] =
            weight[row * static_cast<size_t>(in) + static_cast<size_t>(i)] * factor(r);
    }
    const OnnxValue y = graph_.node("MatMul", {x, graph_.constant(stored + ".weight", {in, rows}, w)});
    return graph_.node("Add", {y, graph_.constant(stored + ".bias", {rows}, b)});
  }
  OnnxValue linear(const OnnxValue& x, const std::string& name) {
    return linear(x, name, name, 0, value(name + ".bias").numel(), [](int64_t) { return 1.0f; });
  }
  // The layer scale that follows is folded in.
  OnnxValue scaled_linear(const OnnxValue& x, const std::string& name, const std::string& scale_name) {
    const std::vector<float> gamma = values(scale_name);
    return linear(x, name, name, 0, static_cast<int64_t>(gamma.size()),
                  [&](int64_t r) { return gamma[static_cast<size_t>(r)]; });
  }

  OnnxValue layer_norm(const OnnxValue& x, const std::string& name, float eps = kNormEps) {
    if (!norm_weight_.contains(name)) {
      norm_weight_[name] = {parameter(graph_, name + ".weight", value(name + ".weight")),
                            parameter(graph_, name + ".bias", value(name + ".bias"))};
    }
    const auto& [weight, bias] = norm_weight_[name];
    return graph_.node("LayerNormalization", {x, weight, bias}, {{"axis", int64_t{-1}}, {"epsilon", eps}});
  }
  OnnxValue reshape(const OnnxValue& x, const OnnxInts& sizes) {  // 0: as it is
    return graph_.node("Reshape", {x, graph_.integers(sizes)});
  }
  OnnxValue transpose(const OnnxValue& x, const OnnxInts& order) {
    return graph_.node("Transpose", {x}, {{"perm", order}});
  }

  // Multi-head attention; the scale of the scores is folded into the queries.
  OnnxValue attention(const OnnxValue& x, const std::string& name) {
    const int64_t dim = config_.dim, heads = config_.heads, width = dim / heads;
    const auto part = [&](const char* stored, int64_t index, float factor, const OnnxInts& order) {
      const OnnxValue y = linear(x, name + ".qkv", name + stored, index * dim, dim, [&](int64_t) { return factor; });
      return transpose(reshape(y, {0, 0, heads, width}), order);
    };
    const OnnxValue q = part(".q", 0, 1.0f / std::sqrt(static_cast<float>(width)), {0, 2, 1, 3});
    const OnnxValue k = part(".k", 1, 1.0f, {0, 2, 3, 1}), v = part(".v", 2, 1.0f, {0, 2, 1, 3});
    const OnnxValue share = graph_.node("Softmax", {graph_.node("MatMul", {q, k})}, {{"axis", int64_t{-1}}});
    return reshape(transpose(graph_.node("MatMul", {share, v}), {0, 2, 1, 3}), {0, 0, dim});
  }

  OnnxValue gelu(const OnnxValue& x) {
    const OnnxValue erf = graph_.node("Erf", {graph_.node("Div", {x, graph_.scalar(std::sqrt(2.0f))})});
    const OnnxValue y = graph_.node("Mul", {x, graph_.node("Add", {erf, graph_.scalar(1.0f)})});
    return graph_.node("Mul", {y, graph_.scalar(0.5f)});
  }
  // silu(gate) * up; the layer's rows are the gates, then the ups.
  OnnxValue swiglu(const OnnxValue& x, const std::string& name) {
    const int64_t hidden = value(name + ".bias").numel() / 2;
    const auto one = [](int64_t) { return 1.0f; };
    const OnnxValue gate = linear(x, name, name + ".gate", 0, hidden, one);
    const OnnxValue up = linear(x, name, name + ".up", hidden, hidden, one);
    return graph_.node("Mul", {graph_.node("Mul", {gate, graph_.node("Sigmoid", {gate})}), up});
  }

  OnnxValue block(const OnnxValue& x, const std::string& name) {
    const OnnxValue mixed = attention(layer_norm(x, name + "norm1"), name + "attn");
    const OnnxValue y = graph_.node("Add", {x, scaled_linear(mixed, name + "attn.proj", name + "ls1.gamma")});
    const OnnxValue normed = layer_norm(y, name + "norm2");
    const OnnxValue hidden = config_.swiglu ? swiglu(normed, name + "mlp.w12") : gelu(linear(normed, name + "mlp.fc1"));
    const std::string last = name + (config_.swiglu ? "mlp.w3" : "mlp.fc2");
    return graph_.node("Add", {y, scaled_linear(hidden, last, name + "ls2.gamma")});
  }

  // The class token and the patches, each with its position.
  OnnxValue tokens(const OnnxValue& image, const std::string& encoder) {
    const int64_t dim = config_.dim, patches = height_ * width_;
    const NoGrad no_grad;
    std::vector<float> cls = values(encoder + "cls_token"),
                       positions = to_vector<float>(
                           to_device(student_.encoder().position_embedding(height_, width_).detach(), Device::kCpu));
    for (size_t i = 0; i < cls.size(); ++i) cls[i] += positions[i];
    positions.erase(positions.begin(), positions.begin() + dim);
    const OnnxValue maps = conv(image, encoder + "patch_embed.proj", DinoV2::kPatch, false);
    const OnnxValue x = graph_.node("Add", {transpose(reshape(maps, {0, dim, patches}), {0, 2, 1}),
                                            graph_.constant(encoder + "pos_embed", {1, patches, dim}, positions)});
    const OnnxValue images = graph_.node("Shape", {x}, {{"end", int64_t{1}}});
    const OnnxValue size = graph_.node("Concat", {images, graph_.integers({1, dim})}, {{"axis", int64_t{0}}});
    const OnnxValue first = graph_.node("Expand", {graph_.constant(encoder + "cls_token", {1, 1, dim}, cls), size});
    return graph_.node("Concat", {first, x}, {{"axis", kTokenAxis}});
  }

  // One map (N, dim, height, width) per tap.
  std::vector<OnnxValue> taps(const OnnxValue& image) {
    const std::string encoder = "pretrained.";
    std::vector<OnnxValue> out;
    OnnxValue x = tokens(image, encoder);
    for (int64_t i = 0; out.size() < config_.taps.size(); ++i) {
      x = block(x, concat_text(encoder, "blocks.", i, "."));
      if (i != config_.taps[out.size()]) continue;
      const OnnxValue patches =
          graph_.node("Slice", {layer_norm(x, encoder + "norm", config_.last_norm_eps), graph_.integers({1}),
                                graph_.integers({1 + height_ * width_}), graph_.integers({kTokenAxis})});
      out.push_back(reshape(transpose(patches, {0, 2, 1}), {0, config_.dim, height_, width_}));
    }
    return out;
  }

  // x + conv2(relu(conv1(relu(x))))
  OnnxValue residual_unit(const OnnxValue& x, const std::string& name) {
    OnnxValue y = conv(activation(graph_, x, Activation::kRelu), name + ".conv1");
    y = conv(activation(graph_, y, Activation::kRelu), name + ".conv2");
    return graph_.node("Add", {x, y});
  }

  // Token maps -> the map before the last activation, and that of the sky behind its own.
  NetworkOutputs head(const std::vector<OnnxValue>& tokens) {
    const std::string root = "depth_head.", scratch = root + "scratch.";
    std::vector<OnnxValue> maps;
    for (size_t i = 0; i < tokens.size(); ++i) {
      OnnxValue x = conv(tokens[i], concat_text(root, "projects.", i));
      const std::string resize = concat_text(root, "resize_layers.", i);
      if (i < 2) x = conv_transpose(x, resize);
      if (i == 3) x = conv(x, resize, 2);
      maps.push_back(conv(x, concat_text(scratch, "layer", i + 1, "_rn")));
    }
    OnnxValue x;
    for (size_t i = maps.size(); i-- > 0;) {
      const std::string fusion = concat_text(scratch, "refinenet", i + 1, ".");
      x = x.empty() ? maps[i] : graph_.node("Add", {x, residual_unit(maps[i], concat_text(fusion, "resConfUnit1"))});
      x = conv(residual_unit(x, concat_text(fusion, "resConfUnit2")), concat_text(fusion, "out_conv"));
      x = i > 0 ? resize_to(graph_, x, maps[i - 1], true) : resize_by(graph_, x, 2.0f, true);
    }
    constexpr float kFusedPatch = 8.0f;  // side of a patch in the fused map
    x = resize_by(graph_, conv(x, scratch + "output_conv1"), DinoV2::kPatch / kFusedPatch, true);
    const auto last = [&](const std::string& convs) {
      return conv(activation(graph_, conv(x, convs + ".0"), Activation::kRelu), convs + ".2");
    };
    NetworkOutputs outputs{last(scratch + "output_conv2"), {}};
    const SkyBranch sky = student_.head().config().sky;
    if (sky != SkyBranch::kNone) {
      outputs.sky = activation(graph_, last(scratch + "sky_output_conv2"),
                               sky == SkyBranch::kRelu ? Activation::kRelu : Activation::kSigmoid);
    }
    return outputs;
  }

  OnnxGraph& graph_;
  const DepthAnything& student_;
  const VitConfig& config_;
  int64_t height_, width_;  // size in patches
  std::map<std::string, StateEntry> state_;
  std::map<std::string, std::pair<OnnxValue, OnnxValue>> norm_weight_;  // the last norm is used at every tap
};

}  // namespace

NetworkOutputs write_depth_anything(OnnxGraph& graph, const DepthAnything& student, const OnnxValue& image,
                                    MapSize size) {
  return Writer(graph, student, size).write(image);
}

}  // namespace depthstill
