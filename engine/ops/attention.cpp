#include "kernels/attention.h"

#include "engine/ops.h"

namespace depthstill {

Tensor attention(const Tensor& qkv, int64_t heads) {
  check(qkv.shape().rank() == 3 && qkv.numel() > 0 && qkv.size(2) % 3 == 0,
        "attention: expected a non-empty qkv (N, T, 3C), got ", qkv.shape());
  const AttentionShape shape{qkv.size(0), qkv.size(1), qkv.size(2) / 3, heads};
  check(heads > 0 && shape.C % heads == 0, "attention: expected heads that divide C = ", shape.C, ", got ", heads);
  check(qkv.device() == Device::kCpu || shape.d() <= kMaxCudaHeadChannels, "attention: expected at most ",
        kMaxCudaHeadChannels, " channels per head on cuda, got ", shape.d());
  Tensor y = empty({shape.N, shape.T, shape.C}, qkv.dtype(), qkv.device());
  Tensor lse = empty({shape.N, heads, shape.T}, DType::kFloat, qkv.device());
  visit(qkv.dtype(), [&]<class T>() { run(qkv.device(), cpu::attention<T>, cuda::attention<T>)(shape, qkv, y, lse); });
  return record("attention", {qkv}, y, [=](const Tensor& dy) -> Gradients {
    Tensor dqkv = empty_like(qkv);
    visit(qkv.dtype(), [&]<class T>() {
      run(qkv.device(), cpu::attention_grad<T>, cuda::attention_grad<T>)(shape, qkv, y, lse, dy, dqkv);
    });
    return {dqkv};
  });
}

}  // namespace depthstill
