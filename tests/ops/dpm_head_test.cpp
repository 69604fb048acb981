#include "engine/allocator.h"
#include "engine/ops.h"
#include "engine/ops_loss.h"
#include "tests/ops/loss_oracle.h"

namespace depthstill {
namespace {

using namespace test;

constexpr DpmBins kSmall{11, 1.0f, 6.0f};

// Both outputs in one scalar, so that both gradients arrive. in: x, weight, bias.
Op both_outputs(const DpmOptions& options, const Tensor& teacher, bool fused) {
  return [=](const std::vector<Tensor>& in) {
    const Tensor target = to_device(teacher, in[0].device());
    const DpmOutput y = fused ? dpm_head_loss(in[0], in[1], in[2], target, kSmall, options)
                              : dpm_loss(conv2d(in[0], in[1], in[2], {}), target, kSmall, options);
    return add(y.kl, scale(mse_loss(y.depth, target), 0.1f));
  };
}

std::vector<Tensor> inputs(int64_t C) {
  return {random_tensor({2, 3, 5, C}, 1, 0.0f, 1.0f), random_tensor({11, 1, 1, C}, 2), random_tensor({11}, 3)};
}

TEST(DpmHead, Gradients) {
  const Tensor teacher = random_tensor({2, 3, 5}, 4, 1.5f, 5.5f);
  for (const KlDirection kl : {KlDirection::kStudentTeacher, KlDirection::kTeacherStudent}) {
    const DpmOptions options{.kl = kl, .first_row = 1};
    expect_gradients(both_outputs(options, teacher, true), inputs(7), {}, {1e-2f, 1e-3});
  }
  expect_gradients([](const std::vector<Tensor>& in) { return dpm_head_depth(in[0], in[1], in[2], kSmall); }, inputs(7),
                   {}, {1e-2f, 1e-3});
}

TEST(DpmHead, IsTheLossOfTheConvolution) {
  const Tensor teacher = random_tensor({2, 3, 5}, 4, 1.5f, 5.5f);
  const DpmOptions options{.first_row = 1};
  const std::vector<Tensor> in = inputs(20);
  const OpResult fused = evaluate(both_outputs(options, teacher, true), in, {true, true, true}, Device::kCpu);
  const OpResult plain = evaluate(both_outputs(options, teacher, false), in, {true, true, true}, Device::kCpu);
  EXPECT_EQ(fused.y, plain.y);
  for (size_t i = 0; i < 3; ++i) EXPECT_LE(relative_error(fused.gradients[i], plain.gradients[i]), 1e-6) << i;
  EXPECT_EQ(values_of(dpm_head_depth(in[0], in[1], in[2], kSmall)),
            values_of(dpm_depth(conv2d(in[0], in[1], in[2], {}), kSmall)));
}

// x comes from a convolution with an activation, which takes its gradient already multiplied by the slope (autograd.h),
// also where another op takes the same x.
TEST(DpmHead, GradientsThroughTheActivationBelow) {
  const Tensor teacher = random_tensor({2, 3, 5}, 4, 1.5f, 5.5f);
  for (const bool shared : {false, true}) {
    const Op op = [=](const std::vector<Tensor>& in) {
      const Tensor target = to_device(teacher, in[0].device());
      const Tensor x = conv2d(in[0], in[1], in[2], {.activation = Activation::kSigmoid});
      const DpmOutput y = dpm_head_loss(x, in[3], in[4], target, kSmall, {});
      const Tensor total = add(y.kl, scale(mse_loss(y.depth, target), 0.1f));
      return shared ? add(total, l1_loss(reshape(crop_rows(x, 0, 1), {2, 5, 7}),
                                         zeros({2, 5, 7}, DType::kFloat, x.device()), {.mask = false}))
                    : total;
    };
    const std::vector<Tensor> in = {random_tensor({2, 3, 5, 4}, 1), random_tensor({7, 1, 1, 4}, 2),
                                    random_tensor({7}, 3), random_tensor({11, 1, 1, 7}, 5), random_tensor({11}, 6)};
    expect_gradients(op, in, {}, {1e-2f, 1e-3});
  }
}

// The products are rounded as conv2d's and the loss's are, in other places: the tolerance is a few steps of bf16.
TEST(DpmHead, SameOnDevicesInBf16) {
  const Tensor teacher = random_tensor({2, 3, 5}, 4, 1.5f, 5.5f);
  std::vector<Tensor> in = inputs(128);
  in[0] = to_bf16(in[0]);
  in[1] = scale(in[1], 0.3f);
  expect_same_on_devices(both_outputs({.first_row = 1}, teacher, true), in, {}, 2e-2);
}

TEST(DpmHead, OnlyNeededGradients) {
  const Tensor teacher = random_tensor({2, 3, 5}, 4, 1.5f, 5.5f);
  const Op op = both_outputs({}, teacher, true);
  const OpResult all = evaluate(op, inputs(7), {true, true, true}, Device::kCpu);
  for (size_t i = 0; i < 3; ++i) {
    std::vector<bool> wanted(3, false);
    wanted[i] = true;
    const OpResult one = evaluate(op, inputs(7), wanted, Device::kCpu);
    EXPECT_EQ(one.gradients[i], all.gradients[i]) << i;
  }
}

// Neither direction holds a tensor of the logits' size.
TEST(DpmHead, StoresNoLogits) {
  const Tensor teacher = random_tensor({1, 600, 240}, 4, 1.0f, 79.0f);
  const DpmBins bins{};
  Tensor x = random_tensor({1, 600, 240, 8}, 5), weight = random_tensor({257, 1, 1, 8}, 6),
         bias = random_tensor({257}, 7);
  x.set_requires_grad();
  weight.set_requires_grad();
  const size_t logit_bytes = 600 * 240 * 257 * sizeof(float);
  reset_peak_memory(Device::kCpu);
  const size_t before = memory_stats(Device::kCpu).in_use;
  backward(dpm_head_loss(x, weight, bias, teacher, bins).kl);
  EXPECT_LT(memory_stats(Device::kCpu).peak - before, logit_bytes / 4);
}

TEST(DpmHead, SaysWhatItNeeds) {
  const std::vector<Tensor> in = inputs(7);
  const Tensor teacher = random_tensor({2, 3, 5}, 4, 1.5f, 5.5f);
  EXPECT_TRUE(dpm_head_supported(in[0].device(), in[0].dtype(), in[0].size(3), kSmall));
  EXPECT_THROW(dpm_head_loss(in[0], random_tensor({11, 1, 1, 8}, 2), in[2], teacher, kSmall), Error);
  EXPECT_THROW(dpm_head_loss(in[0], in[1], random_tensor({12}, 2), teacher, kSmall), Error);
  EXPECT_THROW(dpm_head_loss(in[0], in[1], in[2], random_tensor({2, 5, 3}, 2), kSmall), Error);
  EXPECT_THROW(dpm_head_loss(in[0], in[1], in[2], {}, kSmall), Error);
  EXPECT_THROW(dpm_head_loss(in[0], in[1], in[2], teacher, kSmall, {.first_row = 3}), Error);
  EXPECT_THROW(dpm_head_loss(in[0], in[1], in[2], teacher, kSmall, {.eps = -1.0f}), Error);
  EXPECT_THROW(dpm_head_depth(random_tensor({2, 35}, 1), in[1], in[2], kSmall), Error);
}

}  // namespace
}  // namespace depthstill
