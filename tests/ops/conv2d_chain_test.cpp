// A convolution above another one with an activation: its gradient goes on through that activation, and must be what
// comes out where an op between the two keeps it from doing so.
#include <string>

#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

constexpr Activation kActivations[] = {Activation::kRelu, Activation::kRelu6, Activation::kSigmoid};

Tensor conv3x3(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation act, int stride = 1) {
  Conv2dOptions options;
  options.stride = stride;
  options.pad_top = options.pad_bottom = options.pad_left = options.pad_right = 1;
  options.activation = act;
  return conv2d(x, weight, bias, options);
}

// The same tensor for an op that looks at its history.
Tensor hidden(const Tensor& x) { return reshape(x, x.shape()); }
Tensor shown(const Tensor& x) { return x; }
using Between = Tensor (*)(const Tensor&);

// x, weight, bias, weight above, another weight above. Large enough for relu6 to saturate.
std::vector<Tensor> chain_inputs(bool bf16_images) {
  const Tensor x = random_tensor({2, 7, 9, 5}, 1);
  return {bf16_images ? to_bf16(x) : x, random_tensor({6, 3, 3, 5}, 2, -2.0f, 2.5f), random_tensor({6}, 3, -2.0f, 2.0f),
          random_tensor({4, 3, 3, 6}, 4), random_tensor({4, 3, 3, 6}, 5)};
}

Op chain(Activation act, bool bias, int stride, Between between) {
  return [=](const std::vector<Tensor>& in) {
    const Tensor y = conv3x3(in[0], in[1], bias ? in[2] : Tensor(), act);
    return conv3x3(between(y), in[3], Tensor(), Activation::kSigmoid, stride);
  };
}

TEST(Conv2dChain, TheGradientEntersBelowTheActivation) {
  Tensor weight = random_tensor({6, 3, 3, 5}, 2), bias = random_tensor({6}, 3), above = random_tensor({4, 3, 3, 6}, 4);
  const Tensor x = random_tensor({1, 4, 5, 5}, 1);
  weight.set_requires_grad();
  const Tensor y = conv3x3(x, weight, Tensor(), Activation::kRelu);
  const auto edges = [&](const Tensor& input) {
    return conv3x3(input, above, Tensor(), Activation::kNone).node()->edges;
  };
  EXPECT_EQ(edges(y)[0].node, y.node());
  EXPECT_EQ(edges(y)[0].output, 0);
  EXPECT_EQ(edges(y)[3].node, y.node());
  EXPECT_EQ(edges(y)[3].output, 1);
  EXPECT_EQ(edges(y)[4].node, nullptr) << "sums that nobody needs";
  EXPECT_EQ(edges(hidden(y))[3].node, nullptr);

  bias.set_requires_grad();
  const Tensor with_bias = conv3x3(x, weight, bias, Activation::kRelu);
  EXPECT_EQ(edges(with_bias)[4].node, with_bias.node());
  EXPECT_EQ(edges(with_bias)[4].output, 2);
  EXPECT_EQ(edges(conv3x3(x, weight, bias, Activation::kNone))[3].node, nullptr);
  EXPECT_EQ(edges(conv3x3(x, weight, bias, Activation::kNone))[4].node, nullptr);
  const NoGrad no_grad;
  EXPECT_FALSE(conv3x3(y, above, Tensor(), Activation::kNone).requires_grad());
}

TEST(Conv2dChain, GradientsAreThoseOfTwoSeparatePasses) {
  for (const Activation act : kActivations) {
    for (const bool bf16_images : {false, true}) {
      for (const bool bias : {false, true}) {
        for (const int stride : {1, 2}) {
          SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(act) << (bf16_images ? ", bf16" : "")
                                          << (bias ? ", bias" : "") << ", stride " << stride);
          const auto in = chain_inputs(bf16_images);
          const std::vector<bool> all(in.size(), true);
          const OpResult one = evaluate(chain(act, bias, stride, shown), in, all, Device::kCpu);
          const OpResult two = evaluate(chain(act, bias, stride, hidden), in, all, Device::kCpu);
          EXPECT_EQ(one.y, two.y);
          EXPECT_EQ(one.gradients, two.gradients);
          EXPECT_EQ(one.gradients[2].empty(), !bias);
        }
      }
    }
  }
}

TEST(Conv2dChain, GradientsOfOnlyWhatIsTrained) {
  const auto in = chain_inputs(false);
  const Op one = chain(Activation::kRelu6, true, 1, shown), two = chain(Activation::kRelu6, true, 1, hidden);
  for (int trained = 1; trained < 16; ++trained) {
    std::vector<bool> mask;
    for (int i = 0; i < 5; ++i) mask.push_back((trained >> i) % 2 == 1);
    EXPECT_EQ(evaluate(one, in, mask, Device::kCpu).gradients, evaluate(two, in, mask, Device::kCpu).gradients)
        << "trained " << trained;
  }
}

Tensor concat(const Tensor& a, const Tensor& b) { return upsample_concat(a, {0, a.size(1)}, b, 0, true); }

struct Consumers {
  const char* name;
  Tensor (*op)(const Tensor& y, const std::vector<Tensor>& in, Between between);
};
const Consumers kConsumers[] = {
    {"two convolutions",
     [](const Tensor& y, const std::vector<Tensor>& in, Between between) {
       return add(conv3x3(between(y), in[3], Tensor(), Activation::kSigmoid),
                  conv3x3(between(y), in[4], Tensor(), Activation::kNone));
     }},
    {"convolution and concat",
     [](const Tensor& y, const std::vector<Tensor>& in, Between between) {
       return concat(y, conv3x3(between(y), in[3], Tensor(), Activation::kSigmoid));
     }},
    {"add and convolution",
     [](const Tensor& y, const std::vector<Tensor>& in, Between between) {
       const Tensor twice = add(y, y);
       return concat(conv3x3(between(y), in[3], Tensor(), Activation::kSigmoid), twice);
     }},
    {"two convolutions and concat",
     [](const Tensor& y, const std::vector<Tensor>& in, Between between) {
       return concat(conv3x3(between(y), in[3], Tensor(), Activation::kRelu),
                     concat(y, conv3x3(between(y), in[4], Tensor(), Activation::kSigmoid)));
     }},
};

Op shared(const Consumers& consumers, Activation act, bool bias, Between between) {
  return [=](const std::vector<Tensor>& in) {
    return consumers.op(conv3x3(in[0], in[1], bias ? in[2] : Tensor(), act), in, between);
  };
}

// Sums and products change places, so that the results may differ by their rounding. In bf16 each of the 126 gradients
// that make up a bias's is rounded once more or less, by 2^-9 of a sum whose terms cancel by a factor of a few.
TEST(Conv2dChain, WhatOtherOpsSendAddsUp) {
  constexpr double kBf16 = 2e-2;
  for (const Consumers& consumers : kConsumers) {
    for (const Activation act : kActivations) {
      for (const bool bias : {false, true}) {
        for (const bool bf16_images : {false, true}) {
          SCOPED_TRACE(testing::Message() << consumers.name << ", activation " << static_cast<int>(act)
                                          << (bias ? ", bias" : "") << (bf16_images ? ", bf16" : ""));
          const auto in = chain_inputs(bf16_images);
          const std::vector<bool> all(in.size(), true);
          const OpResult one = evaluate(shared(consumers, act, bias, shown), in, all, Device::kCpu);
          const OpResult two = evaluate(shared(consumers, act, bias, hidden), in, all, Device::kCpu);
          EXPECT_EQ(one.y, two.y);
          for (size_t i = 0; i < in.size(); ++i) {
            ASSERT_EQ(one.gradients[i].size(), two.gradients[i].size());
            if (one.gradients[i].empty()) continue;
            EXPECT_LE(relative_error(one.gradients[i], two.gradients[i]), bf16_images ? kBf16 : 1e-6) << "input " << i;
          }
        }
      }
    }
  }
}

TEST(Conv2dChain, GradientsAgainstDifferences) {
  auto in = chain_inputs(false);
  in[1] = random_tensor({6, 3, 3, 5}, 2);
  expect_gradients(chain(Activation::kSigmoid, true, 1, shown), in, {true, true, true, true, false});
  expect_gradients(shared(kConsumers[0], Activation::kSigmoid, true, shown), in);
  expect_gradients(shared(kConsumers[2], Activation::kSigmoid, true, shown), in, {true, true, true, true, false});
}

TEST(Conv2dChain, IsTheSameOnBothDevices) {
  const auto in = chain_inputs(false);
  for (const Activation act : kActivations) {
    expect_same_on_devices(chain(act, true, 1, shown), in);
    expect_same_on_devices(chain(act, false, 2, shown), in);
    for (const Consumers& consumers : kConsumers) expect_same_on_devices(shared(consumers, act, true, shown), in);
  }
}

// On a GPU the product with the slope and the sums in its epilogue competes with the plain one and our kernel behind
// it. kernels/conv2d/cudnn/conv2d_ways.cpp lists it last, behind the plain plans.
TEST(Conv2dChain, EveryCandidateOfTheLibrariesAgrees) {
  if (!second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  const Tensor weight = random_tensor({16, 3, 3, 8}, 2), bias = random_tensor({16}, 3);
  const std::vector<int> on_gpu = {0, 5, 9, 20};
  for_each_candidate(built_with_cuda() ? on_gpu : first_candidates(21), [&] {
    for (const bool with_bias : {false, true}) {
      const Op op = chain(Activation::kRelu, with_bias, 1, shown);
      const Tensor above = random_tensor({24, 3, 3, 16}, 4);
      expect_same_on_devices(op, {random_tensor({2, 9, 11, 8}, 1), weight, bias, above});
      // Rounded in another place, an output next to 0 may fall on the other side of relu's kink.
      expect_same_on_devices(op, {to_bf16(random_tensor({2, 9, 11, 8}, 1)), weight, bias, above}, {}, 0.1);
    }
  });
}

}  // namespace
}  // namespace depthstill
