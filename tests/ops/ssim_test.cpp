#include "engine/ops_loss.h"
#include "tests/ops/loss_oracle.h"

namespace depthstill {
namespace {

using namespace test;

TEST(Ssim, MatchesPyTorch) {
  const Tensor target = oracle_tensor("depth/target");
  for (const auto& [name, mode] :
       {std::pair("ssim_centred", SsimMode::kCentred), std::pair("ssim_reference", SsimMode::kReference)}) {
    SCOPED_TRACE(name);
    Tensor pred = oracle_tensor("depth/pred");
    pred.set_requires_grad();
    const Tensor loss = ssim_loss(pred, target, {mode, false, 3});
    backward(loss);
    const std::string key = std::string("depth/") + name;
    EXPECT_LE(relative_error(values_of(loss), oracle_values(key + "/loss")), 1e-6);
    EXPECT_LE(relative_error(values_of(pred.grad()), oracle_values(key + "/dpred")), 1e-6);
  }
}

TEST(Ssim, Gradients) {
  const Tensor target = random_tensor({2, 9, 13}, 1, 2.0f, 6.0f);
  for (const SsimMode mode : {SsimMode::kCentred, SsimMode::kReference}) {
    for (const bool mask : {false, true}) {
      const Op op = [&](const std::vector<Tensor>& in) {
        return ssim_loss(in[0], to_device(target, in[0].device()), {mode, mask, 2});
      };
      std::vector<float> near = values_of(target);
      const std::vector<float> noise = random_values(target.numel(), 2, -0.5f, 0.5f);
      for (size_t i = 0; i < near.size(); ++i) near[i] += noise[i];
      const std::vector<Tensor> inputs = {tensor<float>(target.shape(), near)};
      expect_gradients(op, inputs, {}, {3e-3f, 5e-3});
      expect_same_on_devices(op, inputs, {}, 1e-4);
    }
  }
}

TEST(Ssim, SaysWhatItNeeds) {
  const Tensor x = random_tensor({2, 9, 13}, 1);
  EXPECT_THROW(ssim_loss(x, random_tensor({2, 13, 9}, 1)), Error);
  EXPECT_THROW(ssim_loss(to_bf16(x), x), Error);
  EXPECT_THROW(ssim_loss(random_tensor({2, 9}, 1), random_tensor({2, 9}, 1)), Error);
  EXPECT_THROW(ssim_loss(x, x, {.first_row = 9}), Error);
}

}  // namespace
}  // namespace depthstill
