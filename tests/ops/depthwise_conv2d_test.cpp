#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

Op depthwise(int stride, int dilation) {
  return [=](const std::vector<Tensor>& in) { return depthwise_conv2d(in[0], in[1], stride, dilation); };
}

TEST(DepthwiseConv2d, GradientsAndDevices) {
  for (const int stride : {1, 2}) {
    for (const int dilation : {1, 2, 4}) {
      SCOPED_TRACE(::testing::Message() << "stride " << stride << " dilation " << dilation);
      const std::vector<Tensor> in = {random_tensor({2, 7, 9, 19}, 1), random_tensor({3, 3, 19}, 2)};
      expect_gradients(depthwise(stride, dilation), in);
      expect_same_on_devices(depthwise(stride, dilation), in);
      expect_same_on_devices(depthwise(stride, dilation), {to_bf16(in[0]), in[1]}, {}, 4e-3);
    }
  }
}

TEST(DepthwiseConv2d, FiveByFiveAndUnequalPadding) {
  const Tensor x = random_tensor({2, 8, 10, 19}, 1);
  for (const int64_t kernel : {3, 5}) {
    for (const int stride : {1, 2}) {
      const Op op = [=](const std::vector<Tensor>& in) { return depthwise_conv2d(in[0], in[1], {stride, 1, 0, 1}); };
      const Tensor weight = random_tensor({kernel, kernel, 19}, 2);
      expect_gradients(op, {x, weight});
      expect_same_on_devices(op, {x, weight});
      expect_same_on_devices(op, {to_bf16(x), weight}, {}, 4e-3);
    }
  }
}

TEST(DepthwiseConv2d, ComputesOnlyTheGradientsThatAreNeeded) {
  const std::vector<Tensor> in = {random_tensor({1, 5, 6, 8}, 1), random_tensor({3, 3, 8}, 2)};
  const OpResult all = evaluate(depthwise(1, 2), in, {true, true}, Device::kCpu);
  const OpResult dx = evaluate(depthwise(1, 2), in, {true, false}, Device::kCpu);
  const OpResult dweight = evaluate(depthwise(1, 2), in, {false, true}, Device::kCpu);
  EXPECT_EQ(dx.gradients[0], all.gradients[0]);
  EXPECT_TRUE(dx.gradients[1].empty());
  EXPECT_EQ(dweight.gradients[1], all.gradients[1]);
  EXPECT_TRUE(dweight.gradients[0].empty());
}

// x, weight, bias, running_mean, running_var of the batch norm, filter
std::vector<Tensor> normalised_inputs(int64_t kernel = 3) {
  const Shape channels{19};
  return {random_tensor({2, 7, 9, 19}, 1, -2.0f, 3.0f),
          random_tensor(channels, 2, 0.5f, 2.0f),
          random_tensor(channels, 3),
          random_tensor(channels, 4),
          random_tensor(channels, 5, 0.5f, 2.0f),
          random_tensor({kernel, kernel, 19}, 6)};
}
const std::vector<bool> kTrained = {true, true, true, false, false, true};

Op normalised(bool training, Activation act, const DepthwiseConv2dOptions& options) {
  return [=](const std::vector<Tensor>& in) {
    const BatchNormStatistics statistics = batch_norm_statistics(in[0], in[3], in[4], {.training = training});
    return batch_norm_depthwise_conv2d(in[0], statistics, in[1], in[2], act, in[5], options).y;
  };
}

Op stored(bool training, Activation act, const DepthwiseConv2dOptions& options) {
  return [=](const std::vector<Tensor>& in) {
    const Tensor z = batch_norm(in[0], in[1], in[2], in[3], in[4], {.training = training, .activation = act});
    return depthwise_conv2d(z, in[5], options);
  };
}

TEST(BatchNormDepthwiseConv2d, GradientsAndDevices) {
  for (const bool training : {true, false}) {
    for (const int stride : {1, 2}) {
      for (const int dilation : {1, 2, 4}) {
        SCOPED_TRACE(::testing::Message() << training << " stride " << stride << " dilation " << dilation);
        const DepthwiseConv2dOptions options{stride, dilation, dilation, dilation};
        auto in = normalised_inputs();
        for (const Activation act : {Activation::kNone, Activation::kSigmoid}) {  // activations without kinks
          expect_gradients(normalised(training, act, options), in, kTrained);
        }
        for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
          expect_same_on_devices(normalised(training, act, options), in, kTrained);
        }
        in[0] = to_bf16(in[0]);
        expect_same_on_devices(normalised(training, Activation::kRelu6, options), in, kTrained, 4e-3);
      }
    }
  }
}

// They differ by the rounding of x * scale + shift against (x - mean) * scale + bias in fp32, by that of z in bf16.
TEST(BatchNormDepthwiseConv2d, SameAsTheStoredMap) {
  for (const int64_t kernel : {3, 5}) {
    for (const bool training : {true, false}) {
      for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
        const DepthwiseConv2dOptions options{1, 2, 2, 3};
        for (const double tolerance : {1e-6, 4e-3}) {
          auto in = normalised_inputs(kernel);
          if (tolerance > 1e-3) in[0] = to_bf16(in[0]);
          const OpResult a = evaluate(normalised(training, act, options), in, kTrained, Device::kCpu);
          const OpResult b = evaluate(stored(training, act, options), in, kTrained, Device::kCpu);
          EXPECT_LE(relative_error(a.y, b.y), tolerance);
          for (size_t i = 0; i < in.size(); ++i) {
            EXPECT_LE(relative_error(a.gradients[i], b.gradients[i]), tolerance) << "input " << i;
          }
        }
      }
    }
  }
}

TEST(BatchNormDepthwiseConv2d, ComputesOnlyTheGradientsThatAreNeeded) {
  const auto in = normalised_inputs();
  const Op op = normalised(true, Activation::kRelu, {1, 1, 1, 1});
  const OpResult all = evaluate(op, in, kTrained, Device::kCpu);
  const OpResult filter = evaluate(op, in, {false, false, false, false, false, true}, Device::kCpu);
  EXPECT_EQ(filter.gradients[5], all.gradients[5]);
  EXPECT_TRUE(filter.gradients[0].empty() && filter.gradients[1].empty() && filter.gradients[2].empty());
  const OpResult norm = evaluate(op, in, {false, true, true, false, false, false}, Device::kCpu);
  EXPECT_EQ(norm.gradients[1], all.gradients[1]);
  EXPECT_EQ(norm.gradients[2], all.gradients[2]);
  EXPECT_TRUE(norm.gradients[0].empty() && norm.gradients[5].empty());
}

// A batch norm that gets the moments of its input normalises, and moves its running statistics, as if it had read it.
TEST(BatchNormDepthwiseConv2d, MomentsServeTheNextBatchNorm) {
  for (const bool half : {false, true}) {
    auto in = normalised_inputs();
    if (half) in[0] = to_bf16(in[0]);
    const BatchNormStatistics statistics = batch_norm_statistics(in[0], in[3], in[4], {.training = true});
    const auto [y, moments] =
        batch_norm_depthwise_conv2d(in[0], statistics, in[1], in[2], Activation::kRelu6, in[5], {2, 1, 1, 1}, true);
    EXPECT_FALSE(moments.requires_grad());
    const Tensor zero = random_tensor({19}, 8), one = random_tensor({19}, 9, 0.5f, 1.5f);
    const Tensor mean[] = {clone(zero), clone(zero)}, var[] = {clone(one), clone(one)};
    const BatchNormOptions options{.training = true, .activation = Activation::kRelu};
    const Tensor with = batch_norm(y, one, zero, mean[0], var[0], options, moments);
    const Tensor without = batch_norm(y, one, zero, mean[1], var[1], options);
    EXPECT_LE(relative_error(values_of(with), values_of(without)), half ? 4e-3 : 1e-6);
    EXPECT_LE(relative_error(values_of(mean[0]), values_of(mean[1])), 1e-6);
    EXPECT_LE(relative_error(values_of(var[0]), values_of(var[1])), 1e-6);
    batch_norm(y, one, zero, mean[0], var[0], {.training = false}, moments);  // constant statistics: not looked at
    EXPECT_LE(relative_error(values_of(mean[0]), values_of(mean[1])), 1e-6);
  }
}

TEST(BatchNormDepthwiseConv2d, RefusesWhatDoesNotFit) {
  const auto in = normalised_inputs();
  const Tensor four = random_tensor({4}, 1);
  const BatchNormStatistics statistics = batch_norm_statistics(in[0], in[3], in[4], {});
  const auto run = [&](const BatchNormStatistics& s, const Tensor& weight) {
    batch_norm_depthwise_conv2d(in[0], s, weight, in[2], Activation::kNone, in[5], {1, 1, 1, 1});
  };
  EXPECT_NO_THROW(run(statistics, in[1]));
  EXPECT_THROW(run(statistics, four), Error);
  EXPECT_THROW(run({four, statistics.rstd}, in[1]), Error);
  EXPECT_THROW(run({}, in[1]), Error);
  EXPECT_THROW(batch_norm_statistics(in[0], in[3], in[4], {.training = true}, four), Error);
}

TEST(DepthwiseConv2d, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({1, 4, 6, 5}, 1);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 3, 4}, 2), 1, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({7, 7, 5}, 2), 1, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 5, 5}, 2), 1, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 3, 5}, 2), {1, 1, 3, 0}), Error);
  EXPECT_THROW(depthwise_conv2d(x, to_bf16(random_tensor({3, 3, 5}, 2)), 1, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 3, 5}, 2), 3, 1), Error);
  EXPECT_THROW(depthwise_conv2d(x, random_tensor({3, 3, 5}, 2), 1, 0), Error);
}

}  // namespace
}  // namespace depthstill
