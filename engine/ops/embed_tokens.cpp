#include "kernels/embed_tokens.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {

Tensor embed_tokens(const Tensor& patches, const Tensor& cls_token, const Tensor& pos_embed) {
  check(patches.shape().rank() == 3 && patches.numel() > 0,
        "embed_tokens: expected non-empty patches (N, tokens, C), got ", patches.shape());
  const TokenShape shape{patches.size(0), patches.size(1), patches.size(2)};
  const Device device = patches.device();
  const auto is_parameter = [&](const Tensor& x, const Shape& expected) {
    return x.shape() == expected && x.dtype() == DType::kFloat && x.device() == device;
  };
  check(is_parameter(cls_token, {1, 1, shape.C}) && is_parameter(pos_embed, {1, 1 + shape.tokens, shape.C}),
        "embed_tokens: expected an fp32 cls_token (1, 1, ", shape.C, ") and pos_embed (1, ", 1 + shape.tokens, ", ",
        shape.C, ") on ", device, ", got ", cls_token.dtype(), " ", cls_token.shape(), " and ", pos_embed.dtype(), " ",
        pos_embed.shape());
  Tensor y = empty({shape.N, 1 + shape.tokens, shape.C}, patches.dtype(), device);
  const OpRange range("embed_tokens", [&] { return Work{0, bytes_of(patches, pos_embed, y)}; });
  visit(patches.dtype(), [&]<class T>() {
    run(device, cpu::embed_tokens<T>, cuda::embed_tokens<T>)(shape, patches, cls_token, pos_embed, y);
  });
  const bool need_dpatches = patches.requires_grad(),
             need_dpos = cls_token.requires_grad() || pos_embed.requires_grad();
  return record("embed_tokens", {patches, cls_token, pos_embed}, y, [=](const Tensor& dy) -> Gradients {
    Tensor dpatches = need_dpatches ? empty({shape.N, shape.tokens, shape.C}, dy.dtype(), device) : Tensor();
    Tensor dcls = need_dpos ? empty({1, 1, shape.C}, DType::kFloat, device) : Tensor();
    Tensor dpos = need_dpos ? empty({1, 1 + shape.tokens, shape.C}, DType::kFloat, device) : Tensor();
    const OpRange op("embed_tokens", [&] { return Work{0, bytes_of(dy, dpatches, dpos)}; });
    visit(dy.dtype(), [&]<class T>() {
      run(device, cpu::embed_tokens_grad<T>, cuda::embed_tokens_grad<T>)(shape, dy, dpatches, dcls, dpos);
    });
    return {dpatches, dcls, dpos};
  });
}

}  // namespace depthstill
