#include "models/key_rules.h"

#include <charconv>
#include <optional>
#include <span>
#include <string_view>

namespace depthstill {
namespace {

// A rule rewrites the first key that begins with `from`; "#" in it stands for a number, which "#" in `to` repeats.
struct Rule {
  std::string_view from, to;
  int number_minus = 0;  // "#" becomes number_minus - number if that is not 0
  size_t part = 0, of = 1;
};

constexpr Rule kHuggingFaceRules[] = {
    {"encoder.layer.#.attention.attention.query.", "blocks.#.attn.qkv.", 0, 0, 3},
    {"encoder.layer.#.attention.attention.key.", "blocks.#.attn.qkv.", 0, 1, 3},
    {"encoder.layer.#.attention.attention.value.", "blocks.#.attn.qkv.", 0, 2, 3},
    {"encoder.layer.#.attention.output.dense.", "blocks.#.attn.proj."},
    // The names since transformers 5.
    {"encoder.layer.#.attention.q_proj.", "blocks.#.attn.qkv.", 0, 0, 3},
    {"encoder.layer.#.attention.k_proj.", "blocks.#.attn.qkv.", 0, 1, 3},
    {"encoder.layer.#.attention.v_proj.", "blocks.#.attn.qkv.", 0, 2, 3},
    {"encoder.layer.#.attention.o_proj.", "blocks.#.attn.proj."},
    {"encoder.layer.#.layer_scale1.lambda1", "blocks.#.ls1.gamma"},
    {"encoder.layer.#.layer_scale2.lambda1", "blocks.#.ls2.gamma"},
    {"encoder.layer.#.mlp.weights_in.", "blocks.#.mlp.w12."},
    {"encoder.layer.#.mlp.weights_out.", "blocks.#.mlp.w3."},
    {"encoder.layer.#.", "blocks.#."},
    {"embeddings.position_embeddings", "pos_embed"},
    {"embeddings.patch_embeddings.projection.", "patch_embed.proj."},
    {"embeddings.", ""},
    {"layernorm.", "norm."},
};

// transformers numbers the fusion layers from the deepest map up, refinenet4 first.
constexpr Rule kHuggingFaceHeadRules[] = {
    {"neck.reassemble_stage.layers.#.projection.", "projects.#."},
    {"neck.reassemble_stage.layers.#.resize.", "resize_layers.#."},
    {"neck.convs.#.", "scratch.layer#_rn.", -1},
    {"neck.fusion_stage.layers.#.projection.", "scratch.refinenet#.out_conv.", 4},
    {"neck.fusion_stage.layers.#.residual_layer1.convolution1.", "scratch.refinenet#.resConfUnit1.conv1.", 4},
    {"neck.fusion_stage.layers.#.residual_layer1.convolution2.", "scratch.refinenet#.resConfUnit1.conv2.", 4},
    {"neck.fusion_stage.layers.#.residual_layer2.convolution1.", "scratch.refinenet#.resConfUnit2.conv1.", 4},
    {"neck.fusion_stage.layers.#.residual_layer2.convolution2.", "scratch.refinenet#.resConfUnit2.conv2.", 4},
    {"head.conv1.", "scratch.output_conv1."},
    {"head.conv2.", "scratch.output_conv2.0."},
    {"head.conv3.", "scratch.output_conv2.2."},
};

constexpr Rule kDistillAnyDepthRules[] = {
    {"backbone.blocks.0.#.", "pretrained.blocks.#."},
    {"backbone.", "pretrained."},
};

// The authors' names, those of their training (model_loading.py there), and LightlyTrain's.
constexpr Rule kDepthAnything3Rules[] = {
    {"backbone.pretrained.", "pretrained."},
    {"net.pretrained.", "pretrained."},
    {"all_heads.head.scratch.output_conv2_additional.sky_mask.", "depth_head.scratch.sky_output_conv2."},
    {"head.scratch.output_conv2_additional.sky_mask.", "depth_head.scratch.sky_output_conv2."},
    {"all_heads.head.", "depth_head."},
    {"head.", "depth_head."},
    {"backbone.", "pretrained."},
    {"decoder.", "depth_head."},
};

std::string renumber(int number, int number_minus) {
  return std::to_string(number_minus > 0 ? number_minus - number : number - number_minus);
}

std::optional<Renamed> apply(const Rule& rule, std::string_view key) {
  std::string_view from = rule.from;
  std::string to(rule.to);
  if (const size_t hash = from.find('#'); hash != std::string_view::npos) {
    if (!key.starts_with(from.substr(0, hash))) return {};
    key.remove_prefix(hash);
    int number = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), number);
    if (error != std::errc() || number < 0 || number > 1000) return {};
    key.remove_prefix(static_cast<size_t>(end - key.data()));
    from.remove_prefix(hash + 1);
    to.replace(to.find('#'), 1, renumber(number, rule.number_minus));
  }
  if (!key.starts_with(from)) return {};
  return Renamed{to + std::string(key.substr(from.size())), rule.part, rule.of};
}

std::optional<Renamed> apply_first(std::span<const Rule> rules, std::string_view key) {
  for (const Rule& rule : rules) {
    if (auto renamed = apply(rule, key)) return renamed;
  }
  return {};
}

}  // namespace

Renamed rename_hugging_face(const std::string& key) {
  if (auto head = apply_first(kHuggingFaceHeadRules, key)) {
    head->name.insert(0, "depth_head.");
    return *head;
  }
  constexpr std::string_view kBackbone = "backbone.";
  const bool inside = key.starts_with(kBackbone);
  auto renamed = apply_first(kHuggingFaceRules, std::string_view(key).substr(inside ? kBackbone.size() : 0));
  if (!renamed) return {key};
  renamed->name.insert(0, "pretrained.");
  return *renamed;
}

Renamed rename_distill_any_depth(const std::string& key) {
  return apply_first(kDistillAnyDepthRules, key).value_or(Renamed{key});
}

Renamed rename_depth_anything_3(const std::string& key) {
  return apply_first(kDepthAnything3Rules, key).value_or(Renamed{key});
}

}  // namespace depthstill
