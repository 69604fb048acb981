#include "kernels/attention/attention.h"

#include "engine/ops.h"
#include "engine/profile.h"

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
  // One product of T x T x d per head.
  const double product = 2.0 * static_cast<double>(shape.N * shape.C) * static_cast<double>(shape.T * shape.T);
  const OpRange range("attention", [&] { return Work{2 * product, bytes_of(qkv, y, lse)}; });
  visit(qkv.dtype(), [&]<class T>() { run(qkv.device(), cpu::attention<T>, cuda::attention<T>)(shape, qkv, y, lse); });
  return record("attention", {qkv}, y, [=](const Tensor& dy) -> Gradients {
    const int products = qkv.device() == Device::kCpu ? 5 : 7;  // kernels/attention/attention.h
    const OpRange op("attention", [&] { return Work{products * product, bytes_of(qkv, y, lse, dy, qkv)}; });
    Tensor dqkv = empty_like(qkv);
    visit(qkv.dtype(), [&]<class T>() {
      run(qkv.device(), cpu::attention_grad<T>, cuda::attention_grad<T>)(shape, qkv, y, lse, dy, dqkv);
    });
    return {dqkv};
  });
}

}  // namespace depthstill
