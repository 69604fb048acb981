#include "engine/nn.h"

#include <gtest/gtest.h>

#include "engine/init.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using test::random_tensor;

struct Pair final : Module {
  Pair() {
    add_child("conv", conv);
    add_child("norm.inner", norm);
  }
  Conv2d conv{{2, 3, 3, 1, 1, true}};
  BatchNorm2d norm{3};
};

TEST(Module, StateHasFullNamesInOrder) {
  const Pair pair;
  std::vector<std::string> names, parameters;
  for (const StateEntry& e : pair.state()) names.push_back(e.name);
  for (const StateEntry& e : pair.parameters()) parameters.push_back(e.name);
  EXPECT_EQ(names, (std::vector<std::string>{"conv.weight", "conv.bias", "norm.inner.weight", "norm.inner.bias",
                                             "norm.inner.running_mean", "norm.inner.running_var",
                                             "norm.inner.num_batches_tracked"}));
  EXPECT_EQ(parameters, (std::vector<std::string>{"conv.weight", "conv.bias", "norm.inner.weight", "norm.inner.bias"}));
  EXPECT_EQ(pair.parameter_count(), 2 * 3 * 9 + 3 + 6);
}

TEST(Module, ModeReachesChildren) {
  Pair pair;
  EXPECT_TRUE(pair.norm.training());
  pair.eval();
  EXPECT_FALSE(pair.norm.training());
  pair.train();
  EXPECT_TRUE(pair.norm.training());
}

TEST(Module, AFrozenPartKeepsItsValuesAndItsMode) {
  Pair pair;
  const int64_t count = pair.parameter_count();
  pair.freeze("norm.");
  std::vector<std::string> names;
  for (const StateEntry& e : pair.parameters()) names.push_back(e.name);
  EXPECT_EQ(names, (std::vector<std::string>{"conv.weight", "conv.bias"}));
  EXPECT_EQ(pair.parameter_count(), count);
  EXPECT_EQ(pair.state().size(), 7u) << "a checkpoint holds them";
  pair.train();
  EXPECT_TRUE(pair.conv.training());
  EXPECT_FALSE(pair.norm.training());
  const Tensor y = pair.norm.forward(pair.conv.forward(random_tensor({2, 4, 4, 2}, 5)));
  backward(y, random_tensor(y.shape(), 6));
  EXPECT_TRUE(pair.conv.weight.grad().defined());
  EXPECT_FALSE(pair.norm.weight.requires_grad());
  EXPECT_EQ(to_vector<float>(pair.norm.running_mean), std::vector<float>(3, 0.0f));
  EXPECT_THROW(pair.freeze("norm.inner.other."), Error);
}

TEST(Module, MovingKeepsValuesAndLeaves) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  Pair pair;
  const std::vector<float> before = test::random_values(54, 3);
  copy_(pair.conv.weight, tensor<float>(pair.conv.weight.shape(), before));
  pair.to(Device::kCuda);
  EXPECT_EQ(pair.conv.weight.device(), Device::kCuda);
  EXPECT_TRUE(pair.conv.weight.requires_grad());
  EXPECT_FALSE(pair.norm.running_mean.requires_grad());
  EXPECT_EQ(pair.norm.num_batches_tracked.device(), Device::kCpu);
  EXPECT_EQ(to_vector<float>(to_device(pair.conv.weight, Device::kCpu)), before);
}

TEST(Layout, FileFormIsPyTorchs) {
  // Dense: memory (O=2, R=1, S=2, I=3) holds o r s i, the file o i r s.
  const std::vector<float> dense = {0, 10, 20, 1, 11, 21, 100, 110, 120, 101, 111, 121};
  const Tensor file = to_file_layout(tensor<float>({2, 1, 2, 3}, dense), Layout::kConv);
  EXPECT_EQ(file.shape(), (Shape{2, 3, 1, 2}));
  EXPECT_EQ(to_vector<float>(file), (std::vector<float>{0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121}));
  EXPECT_EQ(to_vector<float>(from_file_layout(file, Layout::kConv)), dense);
  // Depthwise: memory (R=1, S=2, C=3), file (C, 1, R, S).
  const std::vector<float> depthwise = {0, 10, 20, 1, 11, 21};
  const Tensor one = to_file_layout(tensor<float>({1, 2, 3}, depthwise), Layout::kDepthwise);
  EXPECT_EQ(one.shape(), (Shape{3, 1, 1, 2}));
  EXPECT_EQ(to_vector<float>(one), (std::vector<float>{0, 1, 10, 11, 20, 21}));
  EXPECT_EQ(to_vector<float>(from_file_layout(one, Layout::kDepthwise)), depthwise);
  EXPECT_THROW(from_file_layout(zeros({3, 2, 1, 2}), Layout::kDepthwise), Error);
}

TEST(Layout, TransposedConvolutionsToo) {
  // Memory (R=1, S=2, O=2, I=3) holds s o i, the file (I, O, R, S) i o s.
  const std::vector<float> memory = {0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112};
  const Tensor file = to_file_layout(tensor<float>({1, 2, 2, 3}, memory), Layout::kConvTranspose);
  EXPECT_EQ(file.shape(), (Shape{3, 2, 1, 2}));
  EXPECT_EQ(to_vector<float>(file), (std::vector<float>{0, 100, 10, 110, 1, 101, 11, 111, 2, 102, 12, 112}));
  const Tensor back = from_file_layout(file, Layout::kConvTranspose);
  EXPECT_EQ(back.shape(), (Shape{1, 2, 2, 3}));
  EXPECT_EQ(to_vector<float>(back), memory);
}

TEST(Padding, SameIsTensorFlows) {
  const auto expect = [](Pads pads, int before, int after) {
    EXPECT_EQ(pads.before, before);
    EXPECT_EQ(pads.after, after);
  };
  expect(pads_of(Padding::kSame, 8, 3, 2, 1), 0, 1);
  expect(pads_of(Padding::kSame, 7, 3, 2, 1), 1, 1);
  expect(pads_of(Padding::kSame, 8, 5, 2, 1), 1, 2);
  expect(pads_of(Padding::kSame, 9, 5, 1, 1), 2, 2);
  expect(pads_of(Padding::kSame, 5, 1, 2, 1), 0, 0);
  expect(pads_of(Padding::kEqual, 8, 5, 2, 3), 6, 6);
  const Conv2d conv({.in = 1, .out = 1, .kernel = 3, .stride = 2, .padding = Padding::kSame});
  EXPECT_EQ(conv.output_size(8), 4);
  EXPECT_EQ(conv.forward(zeros({1, 8, 7, 1})).shape(), (Shape{1, 4, 4, 1}));
  const DepthwiseConv2d depthwise(2, 2, 1, 5, Padding::kSame);
  EXPECT_EQ(depthwise.output_size(10), 5);
  EXPECT_EQ(depthwise.macs_per_pixel(), 50);
  EXPECT_EQ(depthwise.forward(zeros({1, 10, 9, 2})).shape(), (Shape{1, 5, 5, 2}));
}

// A filter whose only tap is its first: the first output is the corner that the padding puts there.
TEST(Padding, SameShiftsTheWindow) {
  Conv2d conv({.in = 1, .out = 1, .kernel = 3, .stride = 2, .bias = false, .padding = Padding::kSame});
  DepthwiseConv2d depthwise(1, 2, 1, 3, Padding::kSame);
  for (const Tensor& weight : {conv.weight, depthwise.weight}) {
    const std::vector<float> first_tap = {1, 0, 0, 0, 0, 0, 0, 0, 0};
    copy_(weight, tensor<float>(weight.shape(), first_tap));
  }
  const Tensor x = random_tensor({1, 4, 5, 1}, 9);  // nothing above, a column of zeros on both sides
  const std::vector<float> in = to_vector<float>(x), expected = {0, in[1], in[3], 0, in[11], in[13]};
  EXPECT_EQ(to_vector<float>(conv.forward(x)), expected);
  EXPECT_EQ(to_vector<float>(depthwise.forward(x)), expected);
}

TEST(BatchNormLayer, HasItsOwnEps) {
  BatchNorm2d norm(1, Activation::kNone, 3.0f);  // running variance 1
  norm.eval();
  EXPECT_FLOAT_EQ(norm.forward(tensor<float>({1, 1, 1, 1}, std::vector<float>{5.0f})).data<float>()[0], 2.5f);
}

TEST(Conv2dLayer, SizesAndWork) {
  const Conv2d stem({3, 32, 3, 2, 1, false});
  EXPECT_EQ(stem.output_size(352), 176);
  EXPECT_EQ(stem.output_size(353), 177);
  EXPECT_EQ(stem.macs_per_pixel(), 27 * 32);
  const DepthwiseConv2d dilated(6, 1, 4);
  EXPECT_EQ(dilated.output_size(44), 44);
  EXPECT_EQ(dilated.macs_per_pixel(), 54);
}

TEST(Conv2dLayer, AWindowThatStartsOneRowEarlyNeedsNoPaddingAbove) {
  Conv2d conv({2, 3, 3, 1, 1, true, Activation::kRelu});
  kaiming_normal_fan_out(conv.weight, Layout::kConv, 7, "w");
  const Tensor x = random_tensor({2, 9, 5, 2}, 1);
  const Tensor whole = conv.forward(x);
  const Tensor window = conv.forward(crop_rows(x, 3, 6), 0);
  EXPECT_LE(test::relative_error(to_vector<float>(window), to_vector<float>(crop_rows(whole, 4, 5))), 1e-6);
}

TEST(LinearLayer, NamesAndWork) {
  const Linear layer(5, 3), plain(5, 3, false);
  std::vector<std::string> names;
  for (const StateEntry& e : layer.parameters()) names.push_back(e.name);
  EXPECT_EQ(names, (std::vector<std::string>{"weight", "bias"}));
  EXPECT_EQ(layer.weight.shape(), (Shape{3, 5}));
  EXPECT_EQ(layer.macs_per_row(), 15);
  EXPECT_EQ(plain.parameter_count(), 15);
  EXPECT_EQ(plain.forward(random_tensor({2, 4, 5}, 1)).shape(), (Shape{2, 4, 3}));
}

TEST(LayerNormLayer, StartsAsPlainNormalisation) {
  const LayerNorm layer(6);
  std::vector<std::string> names;
  for (const StateEntry& e : layer.parameters()) names.push_back(e.name);
  EXPECT_EQ(names, (std::vector<std::string>{"weight", "bias"}));
  const std::vector<float> y = to_vector<float>(layer.forward(random_tensor({2, 6}, 1, 3.0f, 5.0f)));
  double sum = 0, squares = 0;
  for (size_t i = 0; i < 6; ++i) {
    sum += static_cast<double>(y[i]);
    squares += static_cast<double>(y[i]) * static_cast<double>(y[i]);
  }
  EXPECT_NEAR(sum, 0.0, 1e-5);
  EXPECT_NEAR(squares, 6.0, 1e-3);
}

TEST(BatchNormLayer, CountsTrainingBatches) {
  BatchNorm2d norm(4);
  norm.forward(random_tensor({1, 2, 3, 4}, 2));
  norm.eval();
  norm.forward(random_tensor({1, 2, 3, 4}, 2));
  EXPECT_EQ(*norm.num_batches_tracked.data<int64_t>(), 1);
}

TEST(BatchNormLayer, AdoptingMeasuredStatisticsKeepsTheFunction) {
  const int64_t channels = 5;
  BatchNorm2d norm(channels, Activation::kRelu6);
  copy_(norm.weight, random_tensor({channels}, 1, 0.5f, 2.0f));
  copy_(norm.bias, random_tensor({channels}, 2));
  copy_(norm.running_mean, random_tensor({channels}, 3));
  copy_(norm.running_var, random_tensor({channels}, 4, 0.5f, 2.0f));
  const Tensor batches[] = {random_tensor({2, 6, 7, channels}, 5, -1.0f, 4.0f),
                            random_tensor({2, 6, 7, channels}, 6, -3.0f, 3.0f)};
  norm.eval();
  const std::vector<float> before = to_vector<float>(norm.forward(batches[0]));
  norm.start_measuring();
  for (const Tensor& batch : batches) norm.forward(batch);
  norm.adopt_measured();
  EXPECT_LE(test::relative_error(to_vector<float>(norm.forward(batches[0])), before), 1e-6);

  std::vector<double> sum(channels), squares(channels);
  for (const Tensor& batch : batches) {
    const std::vector<float> x = to_vector<float>(batch);
    for (size_t i = 0; i < x.size(); ++i) {
      sum[i % channels] += x[i] / 168.0;
      squares[i % channels] += static_cast<double>(x[i]) * x[i] / 168.0;
    }
  }
  for (size_t c = 0; c < channels; ++c) {
    EXPECT_NEAR(norm.running_mean.data<float>()[c], sum[c], 1e-5);
    EXPECT_NEAR(norm.running_var.data<float>()[c], squares[c] - sum[c] * sum[c], 1e-5 * squares[c]);
  }
  EXPECT_THROW(norm.adopt_measured(), Error);
}

// conv, norm, depthwise, norm, conv, norm: as one after another, also while the first or second batch norm measures.
TEST(Chain, SameAsItsLayers) {
  for (const bool training : {true, false}) {
    for (const int measuring : {-1, 0, 1}) {
      const auto run = [&](bool as_chain) {
        const Conv2d conv({.in = 3, .out = 10, .kernel = 1, .bias = false});
        const DepthwiseConv2d depthwise(10, 2, 1, 5, Padding::kSame);
        const Conv2d project({.in = 10, .out = 10, .kernel = 3, .stride = 2, .bias = false});
        BatchNorm2d norms[] = {BatchNorm2d(10, Activation::kRelu6), BatchNorm2d(10, Activation::kRelu),
                               BatchNorm2d(10)};
        copy_(conv.weight, random_tensor(conv.weight.shape(), 1));
        copy_(depthwise.weight, random_tensor(depthwise.weight.shape(), 2));
        copy_(project.weight, random_tensor(project.weight.shape(), 4));
        for (BatchNorm2d& norm : norms) norm.train(training);
        if (measuring >= 0) norms[measuring].start_measuring();
        const Tensor x = random_tensor({2, 8, 6, 3}, 3);
        const ConvNorm links[] = {{&conv, &norms[0]}, {&depthwise, &norms[1]}, {&project, &norms[2]}};
        const auto one_by_one = [&](Tensor y) {
          for (const ConvNorm& link : links) y = link.norm->forward(link.conv->forward(y));
          return y;
        };
        const Tensor y = as_chain ? forward_chain(x, links) : one_by_one(x);
        std::vector<float> all = to_vector<float>(y);
        if (measuring >= 0) norms[measuring].adopt_measured();
        for (const BatchNorm2d& norm : norms) {
          EXPECT_EQ(*norm.num_batches_tracked.data<int64_t>(), training ? 1 : 0);
          for (const Tensor& t : {norm.running_mean, norm.running_var, norm.weight}) {
            const std::vector<float> values = to_vector<float>(t);
            all.insert(all.end(), values.begin(), values.end());
          }
        }
        return all;
      };
      EXPECT_LE(test::relative_error(run(true), run(false)), 1e-6) << training << measuring;
    }
  }
}

TEST(Init, DependsOnSeedAndNameOnly) {
  const Tensor a = zeros({8, 3, 3, 700}), b = zeros({8, 3, 3, 700}), c = zeros({8, 3, 3, 700});
  kaiming_normal_fan_out(a, Layout::kConv, 1, "x");
  kaiming_normal_fan_out(c, Layout::kConv, 1, "y");
  kaiming_normal_fan_out(b, Layout::kConv, 1, "x");
  EXPECT_EQ(to_vector<float>(a), to_vector<float>(b));
  EXPECT_NE(to_vector<float>(a), to_vector<float>(c));
}

}  // namespace
}  // namespace depthstill
