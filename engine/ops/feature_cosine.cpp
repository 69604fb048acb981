#include "kernels/feature_cosine.h"

#include "engine/ops_loss.h"
#include "engine/profile.h"

namespace depthstill {

Tensor feature_cosine(const Tensor& f, const Tensor& g, float alpha) {
  check(f.shape().rank() >= 2 && f.numel() > 0, "feature_cosine: expected features (..., C), got ", f.shape());
  check(g.shape() == f.shape() && g.dtype() == f.dtype() && g.device() == f.device(), "feature_cosine: expected ",
        f.dtype(), " features ", f.shape(), " on ", f.device(), " to align with, got ", g.dtype(), " ", g.shape(),
        " on ", g.device());
  const int64_t channels = f.size(f.shape().rank() - 1), tokens = f.numel() / channels;
  Tensor loss = empty({1}, DType::kFloat, f.device()), slopes = empty({tokens, 2}, DType::kFloat, f.device());
  const auto slopes_of = [slopes] { return static_cast<TokenSlope*>(slopes.raw()); };
  const OpRange range("feature_cosine", [&] { return Work{0, bytes_of(f, g)}; });
  visit(f.dtype(), [&]<class T>() {
    run(f.device(), cpu::feature_cosine<T>, cuda::feature_cosine<T>)(tokens, channels, alpha, f, g, slopes_of(), loss);
  });
  return record("feature_cosine", {f}, loss, [=, f = f.detach(), g = g.detach()](const Tensor& dy) -> Gradients {
    Tensor df = empty_like(f);
    const OpRange backward("feature_cosine", [&] { return Work{0, bytes_of(f, g, df)}; });
    visit(f.dtype(), [&]<class T>() {
      run(f.device(), cpu::feature_cosine_grad<T>, cuda::feature_cosine_grad<T>)(tokens, channels, f, g, slopes_of(),
                                                                                 dy, df);
    });
    return {df};
  });
}

}  // namespace depthstill
