// On a GPU the DPM head's logits have channels past the bins. Nothing may come of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "losses/tie_kd.h"
#include "models/unet_decoder.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

constexpr int64_t kBins = 17, kHeight = 12, kWidth = 10;
const DpmBins kBinsOver80 = {static_cast<int>(kBins), 1e-3f, 80.0f};

std::vector<Tensor> random_taps(Device device) {
  return {to_device(test::random_tensor({2, kHeight / 2, kWidth / 2, 3}, 1), device),
          to_device(test::random_tensor({2, kHeight / 4, 3, 5}, 2), device)};
}

struct Result {
  int64_t channels = 0;
  std::vector<float> loss, evaluated;
  std::vector<std::vector<float>> gradients;
};

Result run_step(Device device, int64_t first_row) {
  UnetDecoder decoder({.taps = {3, 5}, .widths = {6, 7}, .doublings = 1, .bins = kBins});
  uint32_t seed = 10;
  for (const StateEntry& entry : decoder.parameters())
    copy_(*entry.tensor, test::random_tensor(entry.tensor->shape(), ++seed));
  decoder.to(device);
  const std::vector<Tensor> taps = random_taps(device);
  const Tensor teacher = to_device(test::random_tensor({2, kHeight, kWidth}, 3, 5.0f, 60.0f), device);

  Result result;
  {
    const NoGrad no_grad;
    result.evaluated = to_vector<float>(dpm_depth(decoder.forward(taps), kBinsOver80));
  }
  LossOptions options = named_loss("tie_kd");
  options.top_rows = 4;
  const Tensor logits = decoder.forward(taps, first_row);
  result.channels = logits.size(3);
  const LossResult loss = distillation_loss(logits, teacher, {}, options, kBinsOver80);
  result.loss = {item(loss.total)};
  backward(loss.total);
  for (const Tensor& p : decoder.parameter_tensors()) result.gradients.push_back(to_vector<float>(p.grad()));
  return result;
}

TEST(PaddedHead, LossGradientsAndEvaluationAreThoseOfTheCpu) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  for (const int64_t first_row : {0, 4}) {
    const Result cpu = run_step(Device::kCpu, first_row), cuda = run_step(Device::kCuda, first_row);
    EXPECT_EQ(cpu.channels, kBins);
    EXPECT_EQ(cuda.channels, 24);
    EXPECT_LE(test::relative_error(cuda.loss, cpu.loss), 1e-6);
    EXPECT_LE(test::relative_error(cuda.evaluated, cpu.evaluated), 1e-6);
    ASSERT_EQ(cuda.gradients.size(), cpu.gradients.size());
    for (size_t i = 0; i < cpu.gradients.size(); ++i)
      EXPECT_LE(test::relative_error(cuda.gradients[i], cpu.gradients[i]), 1e-4) << "parameter " << i;  // rounding
  }
}

TEST(PaddedHead, ChannelsPastTheBinsAreZero) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  const NoGrad no_grad;
  UnetDecoder decoder({.taps = {3, 5}, .widths = {6, 7}, .doublings = 1, .bins = kBins});
  for (const StateEntry& entry : decoder.parameters())
    copy_(*entry.tensor, test::random_tensor(entry.tensor->shape(), 5, 0.5f, 1.0f));
  decoder.to(Device::kCuda);
  const std::vector<float> logits = to_vector<float>(decoder.forward(random_taps(Device::kCuda)));
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool padding = static_cast<int64_t>(i % 24) >= kBins;
    ASSERT_EQ(logits[i] == 0.0f, padding) << i;
  }
}

}  // namespace
}  // namespace depthstill
