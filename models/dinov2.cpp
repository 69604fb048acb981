#include "models/dinov2.h"

#include <algorithm>

#include "engine/init.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr double kPositionOffset = 0.1;  // DINOv2's guard against a grid that is one short

// Hidden width of the SwiGLU MLP: two thirds of 4 * dim, rounded up to a multiple of 8.
int64_t swiglu_width(int64_t dim) { return (4 * dim * 2 / 3 + 7) / 8 * 8; }

}  // namespace

class DinoV2::Block final : public Module {
 public:
  explicit Block(const VitConfig& config)
      : heads_(config.heads),
        swiglu_(config.swiglu),
        norm1_(config.dim),
        norm2_(config.dim),
        qkv_(config.dim, 3 * config.dim),
        proj_(config.dim, config.dim),
        in_(config.dim, config.swiglu ? 2 * swiglu_width(config.dim) : 4 * config.dim),
        out_(config.swiglu ? swiglu_width(config.dim) : 4 * config.dim, config.dim) {
    add_child("norm1", norm1_);
    add_child("attn.qkv", qkv_);
    add_child("attn.proj", proj_);
    add_parameter("ls1.gamma", gamma1_, {config.dim});
    add_child("norm2", norm2_);
    add_child(swiglu_ ? "mlp.w12" : "mlp.fc1", in_);
    add_child(swiglu_ ? "mlp.w3" : "mlp.fc2", out_);
    add_parameter("ls2.gamma", gamma2_, {config.dim});
  }

  Tensor forward(const Tensor& x) const {
    const ProfileRange range("fwd", path());
    const Tensor y = layer_scale(x, proj_.forward(attention(qkv_.forward(norm1_.forward(x)), heads_)), gamma1_);
    const Tensor hidden = in_.forward(norm2_.forward(y));
    return layer_scale(y, out_.forward(swiglu_ ? swiglu(hidden) : gelu(hidden, GeluKind::kErf)), gamma2_);
  }

  int64_t macs_per_token() const {
    return qkv_.weight.numel() + proj_.weight.numel() + in_.weight.numel() + out_.weight.numel();
  }

 private:
  int64_t heads_;
  bool swiglu_;
  LayerNorm norm1_, norm2_;
  Linear qkv_, proj_, in_, out_;
  Tensor gamma1_, gamma2_;
};

DinoV2::DinoV2(const VitConfig& config)
    : config_(config),
      patch_embed_({.in = 3, .out = config.dim, .kernel = kPatch, .stride = kPatch}),
      norm_(config.dim, config.last_norm_eps) {
  add_parameter("cls_token", cls_token_, {1, 1, config.dim});
  add_parameter("pos_embed", pos_embed_, {1, 1 + config.grid * config.grid, config.dim});
  add_child("patch_embed.proj", patch_embed_);
  for (int64_t i = 0; i < config.depth; ++i) {
    blocks_.push_back(std::make_unique<Block>(config));
    add_child(concat_text("blocks.", i), *blocks_.back());
  }
  add_child("norm", norm_);
}

DinoV2::~DinoV2() = default;

Tensor DinoV2::position_embedding(int64_t height, int64_t width) const {
  const int64_t grid = config_.grid, dim = config_.dim;
  if (height == grid && width == grid) return pos_embed_;
  const auto scale_of = [&](int64_t n) {
    return (static_cast<double>(n) + kPositionOffset) / static_cast<double>(grid);
  };
  const Tensor patches = reshape(crop_rows(pos_embed_, 1, grid * grid), {1, grid, grid, dim});
  const Tensor resized = upsample_bicubic(patches, height, width, scale_of(height), scale_of(width));
  const int64_t tokens = height * width;
  return add(pad_rows(crop_rows(pos_embed_, 0, 1), 0, tokens), pad_rows(reshape(resized, {1, tokens, dim}), 1, 0));
}

std::vector<Tensor> DinoV2::forward(const Tensor& image) const {
  const int64_t height = image.size(1) / kPatch, width = image.size(2) / kPatch, tokens = height * width;
  // Patches do not overlap: the convolution is a matrix product.
  const ProfileRange patch_range("fwd", patch_embed_.path());
  const Tensor patches = reshape(space_to_depth(image, kPatch), {image.size(0), tokens, kPatch * kPatch * 3});
  const Tensor weight = reshape(patch_embed_.weight, {config_.dim, kPatch * kPatch * 3});
  Tensor x = linear(patches, weight, patch_embed_.bias);
  const ProfileRange range("fwd", path());
  x = embed_tokens(x, cls_token_, position_embedding(height, width));
  std::vector<Tensor> taps;
  for (size_t i = 0; i < blocks_.size() && taps.size() < config_.taps.size(); ++i) {
    x = blocks_[i]->forward(x);
    if (static_cast<int64_t>(i) == config_.taps[taps.size()]) taps.push_back(norm_.forward(crop_rows(x, 1, tokens)));
  }
  return taps;
}

void DinoV2::initialize(uint64_t seed, const std::string& prefix) {
  constexpr double kDeviation = 0.02;
  const int64_t patch_fan_in = patch_embed_.macs_per_pixel() / config_.dim;
  for (const StateEntry& entry : parameters()) {
    const Tensor& x = *entry.tensor;
    const std::string name = prefix + entry.name;
    if (entry.name.starts_with("patch_embed.")) {
      uniform_fan_in(x, patch_fan_in, seed, name);
    } else if (entry.name.ends_with("gamma") || entry.name.find("norm") != std::string::npos) {
      const std::vector<float> values(static_cast<size_t>(x.numel()), entry.name.ends_with("bias") ? 0.0f : 1.0f);
      copy_(x, tensor<float>(x.shape(), values));
    } else if (!entry.name.ends_with("bias")) {
      normal(x, entry.name == "cls_token" ? 1e-6 : kDeviation, seed, name);
    }
  }
}

int64_t DinoV2::macs(int64_t height, int64_t width) const {
  const int64_t patches = (height / kPatch) * (width / kPatch), tokens = patches + 1;
  const int64_t blocks = config_.taps.back() + 1;
  return patches * patch_embed_.macs_per_pixel() +
         blocks * (tokens * blocks_.front()->macs_per_token() + 2 * tokens * tokens * config_.dim);
}

}  // namespace depthstill
