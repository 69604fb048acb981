// The DINOv2 vision transformers (Oquab et al. 2023; ViT-S/B/L/G with 14x14 patches) as encoders of depth networks:
// pre-norm blocks with layer scale, a class token, learnt positions on a 37x37 grid.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/nn.h"

namespace depthstill {

struct VitConfig {
  int64_t dim = 384, depth = 12, heads = 6;
  std::array<int64_t, 4> taps{2, 5, 8, 11};  // blocks whose outputs are given, counted from 0
  bool swiglu = false;                       // the MLP of ViT-G
  int64_t grid = 37;                         // side of the grid that pos_embed is stored for: 518 / 14
  float last_norm_eps = 1e-6f;               // of the norm at the taps; those of the blocks have 1e-6

  bool operator==(const VitConfig&) const = default;
};

class DinoV2 final : public Module {
 public:
  static constexpr int kPatch = 14;

  explicit DinoV2(const VitConfig& config);
  ~DinoV2() override;

  // (N, H, W, 3), H and W multiples of 14 -> per tap the final norm of the patch tokens (N, H / 14 * W / 14, dim).
  std::vector<Tensor> forward(const Tensor& image) const;
  // (1, 1 + height * width, dim): as stored for the stored grid, else the patches' part resized bicubically with the
  // scale (n + 0.1) / grid that DINOv2 passes to PyTorch.
  Tensor position_embedding(int64_t height, int64_t width) const;

  void initialize(uint64_t seed, const std::string& prefix);
  int64_t macs(int64_t height, int64_t width) const;  // work for an image of this size
  const VitConfig& config() const { return config_; }

 private:
  // One transformer block: x += gamma1 * attention(norm1(x)); x += gamma2 * mlp(norm2(x)).
  class Block;

  VitConfig config_;
  Tensor cls_token_, pos_embed_;
  Conv2d patch_embed_;
  std::deque<std::unique_ptr<Block>> blocks_;
  LayerNorm norm_;
};

}  // namespace depthstill
