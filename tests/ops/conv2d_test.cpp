#include "engine/ops.h"
#include "kernels/core/library_options.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

Conv2dOptions padded(int stride, Activation act) {
  Conv2dOptions options;
  options.stride = stride;
  options.pad_top = options.pad_bottom = options.pad_left = options.pad_right = 1;
  options.activation = act;
  return options;
}

TEST(Conv2d, Gradients) {
  for (const int stride : {1, 2}) {
    for (const Activation act : {Activation::kNone, Activation::kSigmoid}) {
      const auto op = [&](const std::vector<Tensor>& in) { return conv2d(in[0], in[1], in[2], padded(stride, act)); };
      expect_gradients(op, {random_tensor({2, 5, 7, 3}, 1), random_tensor({6, 3, 3, 3}, 2), random_tensor({6}, 3)});
    }
  }
}

TEST(Conv2d, GradientsOfOnlyWhatIsTrained) {
  const auto op = [](const std::vector<Tensor>& in) {
    return conv2d(in[0], in[1], Tensor(), padded(1, Activation::kNone));
  };
  const std::vector<Tensor> in = {random_tensor({1, 4, 6, 5}, 1), random_tensor({7, 3, 3, 5}, 2)};
  const OpResult all = evaluate(op, in, {true, true}, Device::kCpu);
  const OpResult dx = evaluate(op, in, {true, false}, Device::kCpu);
  const OpResult dweight = evaluate(op, in, {false, true}, Device::kCpu);
  EXPECT_EQ(dx.gradients[0], all.gradients[0]);
  EXPECT_TRUE(dx.gradients[1].empty());
  EXPECT_EQ(dweight.gradients[1], all.gradients[1]);
  EXPECT_TRUE(dweight.gradients[0].empty());
}

TEST(Conv2d, LeavesASharedGradientAlone) {
  Tensor x = random_tensor({1, 3, 4, 2}, 1).set_requires_grad();
  const Tensor weight = random_tensor({3, 3, 3, 2}, 2);
  const Tensor y = conv2d(x, weight, Tensor(), padded(1, Activation::kSigmoid));
  const Tensor dy = random_tensor(y.shape(), 3);
  const auto before = to_vector<float>(dy);
  backward(y, dy);
  EXPECT_EQ(to_vector<float>(dy), before);
}

TEST(Conv2d, IsTheSameOnBothDevices) {
  const auto op = [](const std::vector<Tensor>& in) {
    return conv2d(in[0], in[1], in[2], padded(1, Activation::kRelu));
  };
  expect_same_on_devices(op,
                         {random_tensor({2, 9, 11, 8}, 1), random_tensor({16, 3, 3, 8}, 2), random_tensor({16}, 3)});
}

// On a GPU several plans of cuDNN and products of cuBLASLt compete, with and without fused epilogues: whichever is the
// fastest, it must compute the same. The numbers reach into each group of kernels/conv2d/cudnn/conv2d_ways.cpp.
TEST(Conv2d, EveryCandidateOfTheLibrariesAgrees) {
  if (!second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  const std::vector<int> on_gpu = {0, 5, 10, 13, 16, 20, 23, 26};
  for_each_candidate(built_with_cuda() ? on_gpu : first_candidates(27), [] {
    for (const Activation act : {Activation::kNone, Activation::kRelu}) {
      for (const int kernel : {1, 3}) {
        Conv2dOptions options;
        options.pad_bottom = options.pad_left = options.pad_right = kernel / 2;  // dead rows may lie above
        options.activation = act;
        const auto op = [&](const std::vector<Tensor>& in) { return conv2d(in[0], in[1], in[2], options); };
        const Tensor weight = random_tensor({24, kernel, kernel, 16}, 2), bias = random_tensor({24}, 3);
        expect_same_on_devices(op, {random_tensor({2, 9, 11, 16}, 1), weight, bias});
        // Rounded in another place, an output next to 0 may fall on the other side of relu's kink.
        const double tolerance = act == Activation::kRelu ? 0.1 : 2e-2;
        expect_same_on_devices(op, {to_bf16(random_tensor({2, 9, 11, 16}, 1)), weight, bias}, {}, tolerance);
      }
    }
  });
}

TEST(Conv2d, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({1, 4, 6, 5}, 1);
  EXPECT_THROW(conv2d(x, random_tensor({7, 3, 3, 4}, 2), Tensor(), {}), Error);
  EXPECT_THROW(conv2d(x, random_tensor({7, 5, 5, 5}, 2), Tensor(), {}), Error);
  EXPECT_THROW(conv2d(x, random_tensor({7, 3, 3, 5}, 2), random_tensor({6}, 3), {}), Error);
  EXPECT_THROW(conv2d(x, to_bf16(random_tensor({7, 3, 3, 5}, 2)), Tensor(), {}), Error);
}

}  // namespace
}  // namespace depthstill
