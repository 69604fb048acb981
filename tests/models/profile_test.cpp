// Of whole networks, the profiler sees work that agrees with gmac() and ranges that are paths of modules.
#include "engine/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "models/model_table.h"

namespace depthstill {
namespace {

struct Case {
  const char* name;
  int64_t height, width;
};

class ProfiledStudent : public testing::TestWithParam<Case> {};

// The forward range that a sample of either direction belongs to.
std::string layer_of(const OpSample& sample) { return std::string(sample.range.substr(4)); }

TEST_P(ProfiledStudent, FlopsAreThoseOfGmacAndRangesArePathsOfModules) {
  const auto [name, height, width] = GetParam();
  ModelOptions options;
  options.head = default_head(name);
  const auto student = make_model(name, options);
  const Tensor image = zeros({2, height, width, 3});
  Profiler profiler(Device::kCpu);
  const Prediction output = student->forward(image);
  const Tensor y = output.dpm ? dpm_logits(*output.dpm) : output.map;
  const std::vector<OpSample> forward = profiler.take();
  backward(y, zeros_like(y));
  const std::vector<OpSample> back = profiler.take();

  double flops = 0;
  for (const OpSample& sample : forward) {
    EXPECT_TRUE(sample.range.starts_with("fwd/")) << sample.range << " " << sample.op;
    flops += sample.work.flops;
  }
  EXPECT_NEAR(flops, 2 * 2e9 * student->gmac(height, width), 1e-9 * flops);

  const std::vector<StateEntry> state = student->state();
  const auto is_path = [&](const std::string& layer) {
    return layer == "output" || layer == "backbone.maxpool" ||  // those two have no state
           std::ranges::any_of(state, [&](const StateEntry& entry) { return entry.name.starts_with(layer + "."); });
  };
  for (const auto* samples : {&forward, &back}) {
    for (const OpSample& sample : *samples) {
      EXPECT_TRUE(is_path(layer_of(sample))) << sample.range << " " << sample.op;
      EXPECT_GT(sample.work.bytes, 0) << sample.range << " " << sample.op;
    }
  }
  // Every layer with a forward product has a backward one.
  for (const OpSample& sample : forward) {
    if (sample.work.flops == 0) continue;
    EXPECT_TRUE(std::ranges::any_of(back, [&](const OpSample& other) {
      return other.range.starts_with("bwd/") && layer_of(other) == layer_of(sample) && other.op == sample.op &&
             other.work.flops >= sample.work.flops;
    })) << sample.range;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ProfiledStudent,
                         testing::Values(Case{"mobilenet_unet", 32, 64}, Case{"resnet18_unet", 32, 64},
                                         Case{"resnet50_unet", 32, 64}, Case{"dpt_s", 70, 42},
                                         Case{"midas_small", 32, 64}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace depthstill
