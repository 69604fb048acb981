// An op of your own, forward and gradient, for tensors on the CPU: softplus, y = ln(1 + e^x), dx = dy / (1 + e^-x). It
// is used like those of engine/ops.h; its gradient is compared with a difference.
#include <depthstill.h>

#include <cmath>
#include <cstdio>

namespace ds = depthstill;

ds::Tensor softplus(const ds::Tensor& x) {
  ds::check(x.dtype() == ds::DType::kFloat && x.device() == ds::Device::kCpu, "softplus: expected fp32 on the CPU");
  const ds::Tensor y = ds::empty_like(x);
  const float* from = x.data<float>();
  float* to = y.data<float>();
  ds::parallel_for(x.numel(), 4096, [&](int64_t i) { to[i] = std::log1p(std::exp(from[i])); });
  // The tape calls this with dy and adds what it returns to the gradient of x. detach(): values without history.
  return ds::record("softplus", {x}, y, [x = x.detach()](const ds::Tensor& dy) -> ds::Gradients {
    const ds::Tensor dx = ds::empty_like(x);
    const float *values = x.data<float>(), *slopes = dy.data<float>();
    float* gradient = dx.data<float>();
    ds::parallel_for(x.numel(), 4096, [&](int64_t i) { gradient[i] = slopes[i] / (1.0f + std::exp(-values[i])); });
    return {dx};
  });
}

int main() {
  constexpr float kX = 0.7f, kStep = 1e-2f;
  const auto value = [](float x) { return ds::item(ds::mean(ds::square(softplus(ds::tensor<float>({1}, {&x, 1}))))); };
  ds::Tensor x = ds::tensor<float>({1}, {&kX, 1});
  x.set_requires_grad();
  ds::backward(ds::mean(ds::square(softplus(x))));
  const float found = ds::item(x.grad()), expected = (value(kX + kStep) - value(kX - kStep)) / (2 * kStep);
  std::printf("gradient %.5f, by difference %.5f\n", static_cast<double>(found), static_cast<double>(expected));
  return std::abs(found - expected) < 1e-3f ? 0 : 1;
}
