// A convolution between two batch norms: z, the normalised map, is not kept, and the moments of y come along with it.
#include "engine/ops.h"
#include "kernels/core/library_options.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

// The kernel is 1 x 1 or 3 x 3.
Conv2dOptions options_of(int64_t kernel, int stride, int dilation) {
  Conv2dOptions options{.stride = stride, .dilation = dilation};
  options.pad_top = options.pad_bottom = options.pad_left = options.pad_right =
      dilation * static_cast<int>(kernel - 1) / 2;
  return options;
}

// x, weight, bias, running_mean, running_var of the batch norm, filter
std::vector<Tensor> inputs(int64_t kernel, int64_t C = 11, int64_t O = 10) {
  const Shape channels{C};
  return {random_tensor({2, 7, 9, C}, 1, -2.0f, 3.0f),
          random_tensor(channels, 2, 0.5f, 2.0f),
          random_tensor(channels, 3),
          random_tensor(channels, 4),
          random_tensor(channels, 5, 0.5f, 2.0f),
          random_tensor({O, kernel, kernel, C}, 6)};
}
const std::vector<bool> kTrained = {true, true, true, false, false, true};

Op normalised(bool training, Activation act, const Conv2dOptions& options) {
  return [=](const std::vector<Tensor>& in) {
    const BatchNormStatistics statistics = batch_norm_statistics(in[0], in[3], in[4], {.training = training});
    return batch_norm_conv2d(in[0], statistics, in[1], in[2], act, in[5], options).y;
  };
}

Op stored(bool training, Activation act, const Conv2dOptions& options) {
  return [=](const std::vector<Tensor>& in) {
    const Tensor z = batch_norm(in[0], in[1], in[2], in[3], in[4], {.training = training, .activation = act});
    return conv2d(z, in[5], {}, options);
  };
}

TEST(BatchNormConv2d, GradientsAndDevices) {
  for (const bool training : {true, false}) {
    for (const int64_t kernel : {1, 3}) {
      SCOPED_TRACE(::testing::Message() << training << " kernel " << kernel);
      const Conv2dOptions options = options_of(kernel, kernel == 3 ? 2 : 1, 1);
      auto in = inputs(kernel);
      for (const Activation act : {Activation::kNone, Activation::kSigmoid}) {  // activations without kinks
        expect_gradients(normalised(training, act, options), in, kTrained);
      }
      for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
        expect_same_on_devices(normalised(training, act, options), in, kTrained);
      }
      in[0] = to_bf16(in[0]);
      expect_same_on_devices(normalised(training, Activation::kRelu6, options), in, kTrained, 1e-2);
    }
  }
}

// Both ways do the same work in the same order on the CPU, but for what is computed twice.
TEST(BatchNormConv2d, SameBitsAsTheStoredMap) {
  for (const int64_t kernel : {1, 3}) {
    for (const bool training : {true, false}) {
      for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
        for (const bool half : {false, true}) {
          const Conv2dOptions options = options_of(kernel, 1, 2);
          auto in = inputs(kernel);
          if (half) in[0] = to_bf16(in[0]);
          const OpResult a = evaluate(normalised(training, act, options), in, kTrained, Device::kCpu);
          const OpResult b = evaluate(stored(training, act, options), in, kTrained, Device::kCpu);
          EXPECT_EQ(a.y, b.y);
          for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(a.gradients[i], b.gradients[i]) << "input " << i;
        }
      }
    }
  }
}

TEST(BatchNormConv2d, ComputesOnlyTheGradientsThatAreNeeded) {
  const auto in = inputs(1);
  const Op op = normalised(true, Activation::kRelu, options_of(1, 1, 1));
  const OpResult all = evaluate(op, in, kTrained, Device::kCpu);
  const OpResult filter = evaluate(op, in, {false, false, false, false, false, true}, Device::kCpu);
  EXPECT_EQ(filter.gradients[5], all.gradients[5]);
  EXPECT_TRUE(filter.gradients[0].empty() && filter.gradients[1].empty() && filter.gradients[2].empty());
  const OpResult norm = evaluate(op, in, {false, true, true, false, false, false}, Device::kCpu);
  EXPECT_EQ(norm.gradients[1], all.gradients[1]);
  EXPECT_EQ(norm.gradients[2], all.gradients[2]);
  EXPECT_TRUE(norm.gradients[0].empty() && norm.gradients[5].empty());
}

// A batch norm that gets the moments of its input normalises, and moves its running statistics, as if it had read it,
// however far from the mean they were guessed. There are cases with and without a batch norm below.
TEST(BatchNormConv2d, MomentsServeTheNextBatchNorm) {
  std::vector<Device> devices = {Device::kCpu};
  if (available(Device::kCuda)) devices.push_back(Device::kCuda);
  for (const Device device : devices) {
    for (const bool half : {false, true}) {
      for (const float guess : {0.0f, 300.0f}) {
        auto in = inputs(3);
        if (half) in[0] = to_bf16(in[0]);
        for (Tensor& t : in) t = to_device(t, device);
        const Tensor guesses = to_device(random_tensor({10}, 8, guess, guess + 0.5f), device);
        const Conv2dOptions options = options_of(3, 2, 1);
        const BatchNormStatistics statistics = batch_norm_statistics(in[0], in[3], in[4], {.training = true});
        const ConvolutionResult results[] = {
            batch_norm_conv2d(in[0], statistics, in[1], in[2], Activation::kRelu6, in[5], options, guesses),
            conv2d_moments(in[0], in[5], guesses, options)};
        for (const auto& [y, moments] : results) {
          EXPECT_FALSE(moments.requires_grad());
          const Tensor zero = to_device(random_tensor({10}, 8), device);
          const Tensor one = to_device(random_tensor({10}, 9, 0.5f, 1.5f), device);
          const Tensor mean[] = {clone(zero), clone(zero)}, var[] = {clone(one), clone(one)};
          const BatchNormOptions next{.training = true, .activation = Activation::kRelu};
          const Tensor with = batch_norm(y, one, zero, mean[0], var[0], next, moments);
          const Tensor without = batch_norm(y, one, zero, mean[1], var[1], next);
          EXPECT_LE(relative_error(values_of(with), values_of(without)), half ? 4e-3 : 2e-6);
          EXPECT_LE(relative_error(values_of(mean[0]), values_of(mean[1])), 1e-6);
          EXPECT_LE(relative_error(values_of(var[0]), values_of(var[1])), 1e-6);
        }
      }
    }
  }
}

TEST(Conv2dMoments, GradientsAreThoseOfTheConvolution) {
  const auto in = inputs(3);
  const Conv2dOptions options = options_of(3, 1, 1);
  const Tensor guess = random_tensor({10}, 8);
  const auto with = [&](const std::vector<Tensor>& t) { return conv2d_moments(t[0], t[5], guess, options).y; };
  const auto without = [&](const std::vector<Tensor>& t) { return conv2d(t[0], t[5], {}, options); };
  const std::vector<bool> trained = {true, false, false, false, false, true};
  const OpResult a = evaluate(with, in, trained, Device::kCpu), b = evaluate(without, in, trained, Device::kCpu);
  EXPECT_EQ(a.y, b.y);
  for (const size_t i : {0, 5}) EXPECT_EQ(a.gradients[i], b.gradients[i]);
}

// On a GPU cuDNN fuses the batch norms, or our kernels do them before and after. The maps are large enough for cuDNN to
// be asked.
TEST(BatchNormConv2d, EveryCandidateOfTheLibrariesAgrees) {
  if (!second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  // The simulation, whose kernels are slow, runs the candidates where the lists change from one kind to the next.
  const std::vector<int> simulated = {0, 5, 6, 7, 8, 10};
  for_each_candidate(built_with_cuda() ? first_candidates(18) : simulated, [] {
    auto in = inputs(1, 48, 64);
    in[0] = random_tensor({2, 160, 256, 48}, 1, -2.0f, 3.0f);
    const auto op = [](const std::vector<Tensor>& t) {
      const auto vector = [&](uint32_t seed, float from) {
        return to_device(random_tensor({64}, seed, from, 1.0f), t[0].device());
      };
      const BatchNormStatistics statistics = batch_norm_statistics(t[0], t[3], t[4], {.training = true});
      const ConvolutionResult r = batch_norm_conv2d(t[0], statistics, t[1], t[2], Activation::kRelu6, t[5],
                                                    options_of(1, 1, 1), vector(8, -1.0f));
      return batch_norm(r.y, vector(7, 0.5f), vector(9, 0.0f), vector(10, 0.0f), vector(11, 0.5f), {.training = true},
                        r.moments);
    };
    expect_same_on_devices(op, in, kTrained, 1e-4);
    in[0] = to_bf16(in[0]);
    expect_same_on_devices(op, in, kTrained, 3e-2);
  });
}

TEST(BatchNormConv2d, RefusesWhatDoesNotFit) {
  const auto in = inputs(1);
  const Tensor four = random_tensor({4}, 1);
  const BatchNormStatistics statistics = batch_norm_statistics(in[0], in[3], in[4], {});
  const auto run = [&](const BatchNormStatistics& s, const Tensor& weight, const Tensor& filter,
                       const Tensor& guess = {}) {
    batch_norm_conv2d(in[0], s, weight, in[2], Activation::kNone, filter, {}, guess);
  };
  EXPECT_NO_THROW(run(statistics, in[1], in[5], random_tensor({10}, 2)));
  EXPECT_THROW(run(statistics, four, in[5]), Error);
  EXPECT_THROW(run({four, statistics.rstd}, in[1], in[5]), Error);
  EXPECT_THROW(run({}, in[1], in[5]), Error);
  EXPECT_THROW(run(statistics, in[1], random_tensor({10, 1, 1, 4}, 2)), Error);
  EXPECT_THROW(run(statistics, in[1], in[5], four), Error);
  EXPECT_THROW(conv2d_moments(in[0], in[5], four, {}), Error);
}

}  // namespace
}  // namespace depthstill
