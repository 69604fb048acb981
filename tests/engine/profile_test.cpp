// Ranges and samples of a small graph: names, directions, work, and silence without a profiler.
#include "engine/profile.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/nn.h"
#include "engine/ops.h"
#include "engine/optim.h"

namespace depthstill {
namespace {

struct Pair : Module {
  Pair() {
    add_child("first.conv", first);
    add_child("norm", norm);
  }
  Tensor forward(const Tensor& x) {
    const ProfileRange range("fwd", path(), "sum");
    return add(norm.forward(first.forward(x)), x);
  }
  Conv2d first{{.in = 4, .out = 4, .kernel = 3}};
  BatchNorm2d norm{4};
};

struct Root : Module {
  Root() { add_child("pair.0", pair); }
  Pair pair;
};

std::vector<std::string> names_of(const std::vector<OpSample>& samples) {
  std::vector<std::string> names;
  for (const OpSample& sample : samples) names.push_back(std::string(sample.range) + " " + std::string(sample.op));
  return names;
}

Tensor image(Device device) { return tensor<float>({1, 5, 6, 4}, std::vector<float>(120, 0.5f), device); }

TEST(Profile, PathsAreThoseOfTheState) {
  Root root;
  EXPECT_EQ(root.path(), "");
  EXPECT_EQ(root.pair.path(), "pair.0");
  EXPECT_EQ(root.pair.first.path(), "pair.0.first.conv");
  EXPECT_EQ(root.state()[0].name, root.pair.first.path() + ".weight");
}

void expect_step(Device device) {
  Root root;
  root.to(device);
  AdamW optimiser(root.parameter_tensors(), {});
  Profiler profiler(device);
  {
    const Tensor y = root.pair.forward(image(device));
    const ProfileRange range("loss", "halved");
    backward(scale(y, 0.5f), y.detach());
  }
  optimiser.step();
  const std::vector<OpSample> samples = profiler.take();
  EXPECT_EQ(names_of(samples), (std::vector<std::string>{"fwd/pair.0.first.conv conv2d", "fwd/pair.0.norm batch_norm",
                                                         "fwd/pair.0.sum add", "loss/halved scale",
                                                         "bwd/loss/halved scale", "bwd/pair.0.norm batch_norm",
                                                         "bwd/pair.0.first.conv conv2d", "update/adamw adamw"}));
  for (const OpSample& sample : samples) {
    EXPECT_GE(sample.ms, 0.0) << sample.op;
    EXPECT_GT(sample.work.bytes, 0.0) << sample.op;
  }
  const double flops = 2.0 * 5 * 6 * 4 * 4 * 9, map_bytes = 120 * 4, weight_bytes = 4 * 4 * 9 * 4;
  EXPECT_EQ(samples[0].work.flops, flops);
  EXPECT_EQ(samples[0].work.bytes, 2 * map_bytes + weight_bytes);
  EXPECT_EQ(samples[1].work.flops, 0);
  EXPECT_EQ(samples[1].work.bytes, 3 * map_bytes);             // training: statistics, then x and y
  EXPECT_EQ(samples[6].work.flops, flops);                     // the image needs no gradient
  EXPECT_EQ(samples[7].work.bytes, 32.0 * (144 + 4 + 4 + 4));  // per parameter: the norm 4, the update 28
  EXPECT_TRUE(profiler.take().empty());
}

TEST(Profile, AStepGivesOneSamplePerCallInTheRangeOfItsModule) { expect_step(Device::kCpu); }

TEST(Profile, OnCudaTimesComeFromEvents) {
  if (!built_with_cuda()) enable_emulated_cuda();
  if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  expect_step(Device::kCuda);
}

TEST(Profile, AnOpInsideAnotherBelongsToIt) {
  Profiler profiler(Device::kCpu);
  {
    const OpRange outer("outer", [] { return Work{0, 1}; });
    add(image(Device::kCpu), image(Device::kCpu));
  }
  EXPECT_EQ(names_of(profiler.take()), std::vector<std::string>{" outer"});
}

TEST(Profile, WithoutAProfilerWorkIsNotEvenComputed) {
  const ProfileRange range("fwd", "x");
  const OpRange op("op", []() -> Work { fail("computed"); });
  EXPECT_EQ(open_range(), nullptr);
}

// A node knows its range by name: the tape may be walked under another profiler.
TEST(Profile, ATapeOutlivesItsProfiler) {
  Tensor x = image(Device::kCpu);
  x.set_requires_grad();
  Tensor y;
  {
    Profiler profiler(Device::kCpu);
    const ProfileRange range("fwd", "layer");
    y = scale(x, 2.0f);
  }
  Profiler profiler(Device::kCpu);
  backward(y, image(Device::kCpu));
  EXPECT_EQ(names_of(profiler.take()), std::vector<std::string>{"bwd/layer scale"});
}

}  // namespace
}  // namespace depthstill
