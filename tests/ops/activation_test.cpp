#include <algorithm>

#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

// Values at least 0.05 away from the kinks at 0 and 6.
Tensor inputs() {
  std::vector<float> values = random_values(2 * 3 * 5 * 7, 1, -3.0f, 9.0f);
  for (float& v : values) {
    if (std::abs(v) < 0.05f) v = 0.3f;
    if (std::abs(v - 6.0f) < 0.05f) v = 6.3f;
  }
  return tensor<float>({2, 3, 5, 7}, values);
}

TEST(Activation, GradientsAndDevices) {
  for (const Activation kind : {Activation::kNone, Activation::kRelu, Activation::kRelu6, Activation::kSigmoid}) {
    SCOPED_TRACE(static_cast<int>(kind));
    const auto op = [&](const std::vector<Tensor>& in) { return activation(in[0], kind); };
    expect_gradients(op, {inputs()});
    expect_same_on_devices(op, {inputs()});
    expect_same_on_devices(op, {to_bf16(inputs())}, {}, 4e-3);
  }
}

TEST(Activation, LeavesASharedGradientAlone) {
  const Tensor x = inputs().set_requires_grad();
  const Tensor y = activation(x, Activation::kRelu), dy = random_tensor(y.shape(), 3);
  const auto before = to_vector<float>(dy);
  backward(y, dy);
  EXPECT_EQ(to_vector<float>(dy), before);
}

constexpr Activation kKinds[] = {Activation::kRelu, Activation::kRelu6, Activation::kSigmoid};

Tensor conv3x3(const Tensor& y, const Tensor& weight, int stride = 1) {
  return conv2d(y, weight, Tensor(), {.stride = stride, .pad_top = 1, .pad_bottom = 1, .pad_left = 1, .pad_right = 1});
}

// Readers take y = activation(x): in[1] and in[2] are filters, in[3] a map to add. Backward visits them from the last.
struct Readers {
  const char* name;
  int count;
  Tensor (*op)(const Tensor& y, const std::vector<Tensor>& in);
};
const Readers kReaders[] = {
    {"one convolution", 1, [](const Tensor& y, const std::vector<Tensor>& in) { return conv3x3(y, in[1]); }},
    {"one convolution of stride 2", 1,
     [](const Tensor& y, const std::vector<Tensor>& in) { return conv3x3(y, in[1], 2); }},
    {"two convolutions", 2,
     [](const Tensor& y, const std::vector<Tensor>& in) { return add(conv3x3(y, in[1]), conv3x3(y, in[2])); }},
    {"a convolution, then its shortcut", 2,
     [](const Tensor& y, const std::vector<Tensor>& in) { return add(conv3x3(y, in[1]), y); }},
    {"a sum, then a convolution", 2,
     [](const Tensor& y, const std::vector<Tensor>& in) {
       const Tensor sum = add(y, in[3]);
       return add(conv3x3(y, in[1]), sum);
     }},
    {"two convolutions, then a tap", 3,
     [](const Tensor& y, const std::vector<Tensor>& in) {
       const Tensor a = conv3x3(y, in[1]), b = conv3x3(y, in[2]);
       return add(add(a, b), scale(y, 1.5f));
     }},
    {"a sum, a convolution, a tap", 3,
     [](const Tensor& y, const std::vector<Tensor>& in) {
       const Tensor sum = add(y, in[3]), conv = conv3x3(y, in[2]);
       return add(add(conv, sum), scale(y, -0.5f));
     }},
    {"two sums", 2,
     [](const Tensor& y, const std::vector<Tensor>& in) { return add(scale(add(y, in[3]), 2.0f), add(in[3], y)); }},
};

std::vector<Tensor> readers_inputs(bool bf16_images) {
  const Tensor x = inputs(), map = random_tensor(x.shape(), 4);
  return {bf16_images ? to_bf16(x) : x, random_tensor({7, 3, 3, 7}, 2), random_tensor({7, 3, 3, 7}, 3),
          bf16_images ? to_bf16(map) : map};
}

Op read_by(const Readers& readers, Activation kind) {
  return [&readers, kind](const std::vector<Tensor>& in) { return readers.op(activation(in[0], kind), in); };
}
// The same readers, but whatever arrives is added up before the slope is taken.
Op read_apart(const Readers& readers, Activation kind) {
  return [&readers, kind](const std::vector<Tensor>& in) {
    const Tensor y = activation(in[0], kind);
    return readers.op(reshape(y, y.shape()), in);
  };
}

// Slopes of 0 and 1 change no bit, wherever they are taken; that of a sigmoid rounds once more or less. Of three
// gradients, others are added first.
TEST(Activation, GradientsOfSeveralReadersAreThoseOfTheirSum) {
  for (const Readers& readers : kReaders) {
    for (const Activation kind : kKinds) {
      for (const bool bf16_images : {false, true}) {
        SCOPED_TRACE(testing::Message() << readers.name << ", activation " << static_cast<int>(kind)
                                        << (bf16_images ? ", bf16" : ""));
        const auto in = readers_inputs(bf16_images);
        const std::vector<bool> all(in.size(), true);
        const OpResult one = evaluate(read_by(readers, kind), in, all, Device::kCpu);
        const OpResult two = evaluate(read_apart(readers, kind), in, all, Device::kCpu);
        EXPECT_EQ(one.y, two.y);
        ASSERT_FALSE(one.gradients[0].empty());
        if (kind == Activation::kSigmoid || readers.count > 2) {
          EXPECT_LE(relative_error(one.gradients[0], two.gradients[0]), bf16_images ? 1e-2 : 1e-6);
        } else {
          EXPECT_EQ(one.gradients[0], two.gradients[0]);
        }
        for (size_t i = 1; i < in.size(); ++i) EXPECT_EQ(one.gradients[i], two.gradients[i]) << "input " << i;
      }
    }
  }
}

TEST(Activation, GradientsOfSeveralReadersOnDevicesAndAgainstDifferences) {
  const auto in = readers_inputs(false);
  for (const Readers& readers : kReaders) {
    SCOPED_TRACE(readers.name);
    expect_gradients(read_by(readers, Activation::kRelu6), in, {true, false, false, false});
    for (const Activation kind : kKinds) expect_same_on_devices(read_by(readers, kind), in);
  }
}

// A 1x1 convolution, its shortcut and a tap send gradients, which are added up in double.
TEST(Activation, GradientsOfAResidualBlockAgainstDouble) {
  constexpr int64_t kPixels = 2 * 3 * 5, kChannels = 7;
  const Tensor weight = random_tensor({kChannels, 1, 1, kChannels}, 2);
  for (const Activation kind : kKinds) {
    const Op op = [kind](const std::vector<Tensor>& in) {
      const Tensor y = activation(in[0], kind);
      return add(add(conv2d(y, in[1], Tensor(), {}), y), scale(y, -1.75f));
    };
    const OpResult found = evaluate(op, {inputs(), weight}, {true, true}, Device::kCpu);
    const auto x = to_vector<float>(inputs()), w = to_vector<float>(weight);
    const auto dy = to_vector<float>(random_tensor(inputs().shape(), 77));  // dy of evaluate()
    for (int64_t i = 0; i < kPixels * kChannels; ++i) {
      const int64_t pixel = i / kChannels, c = i % kChannels;
      const double at = static_cast<double>(x[static_cast<size_t>(i)]), sigmoid = 1.0 / (1.0 + std::exp(-at));
      const double slope = kind == Activation::kSigmoid
                               ? sigmoid * (1.0 - sigmoid)
                               : (at > 0.0 && (kind == Activation::kRelu || at < 6.0) ? 1.0 : 0.0);
      double sum = (1.0 - 1.75) * static_cast<double>(dy[static_cast<size_t>(i)]);
      for (int64_t o = 0; o < kChannels; ++o) {
        sum += static_cast<double>(dy[static_cast<size_t>(pixel * kChannels + o)]) *
               static_cast<double>(w[static_cast<size_t>(o * kChannels + c)]);
      }
      EXPECT_NEAR(static_cast<double>(found.gradients[0][static_cast<size_t>(i)]), sum * slope, 2e-6)
          << "element " << i;
    }
  }
}

TEST(Activation, OnlyAConvolutionAboveLeavesNoPass) {
  Tensor x = inputs(), weight = random_tensor({7, 3, 3, 7}, 2);
  x.set_requires_grad();
  const Tensor y = activation(x, Activation::kRelu);
  const Tensor dz = random_tensor(y.shape(), 3);
  EXPECT_EQ(conv3x3(y, weight).node()->edges[3].node, y.node());
  EXPECT_EQ(y.node()->gradient({Tensor(), dz, Tensor(), Tensor()})[0].raw(), dz.raw());
}

// A sum sends one gradient to both of its inputs.
TEST(Activation, LeavesTwoSharedGradientsAlone) {
  Tensor x = inputs(), a = random_tensor(x.shape(), 5), b = random_tensor(x.shape(), 6);
  for (Tensor* t : {&x, &a, &b}) t->set_requires_grad();
  const Tensor y = activation(x, Activation::kRelu), dy = random_tensor(y.shape(), 3);
  backward(add(add(y, a), add(y, b)), dy);
  const auto expected = to_vector<float>(dy);
  EXPECT_EQ(to_vector<float>(a.grad()), expected);
  EXPECT_EQ(to_vector<float>(b.grad()), expected);
  const auto found = to_vector<float>(x.grad()), at = to_vector<float>(x);
  for (size_t i = 0; i < at.size(); ++i) EXPECT_EQ(found[i], at[i] > 0.0f ? 2 * expected[i] : 0.0f);
}

}  // namespace
}  // namespace depthstill
