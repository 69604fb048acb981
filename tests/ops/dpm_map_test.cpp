// Maps of depth bins: which way a head's logits are made changes nothing, and on a GPU, where stored logits have
// channels past the bins, nothing comes of these.
#include "engine/ops/dpm_map.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

constexpr int64_t kBins = 17, kChannels = 6, kHeight = 12, kWidth = 10;
const DpmBins kBinsOver80 = {static_cast<int>(kBins), 1e-3f, 80.0f};

struct Problem {
  Tensor x, teacher;
  DpmHead head;

  explicit Problem(Device device) {
    x = leaf({2, kHeight, kWidth, kChannels}, 1, device);
    head.weight = leaf({kBins, 1, 1, kChannels}, 2, device);
    head.bias = leaf({kBins}, 3, device);
    teacher = to_device(test::random_tensor({2, kHeight, kWidth}, 4, 5.0f, 60.0f), device);
  }
  DpmMap map() const { return {x, head, kBinsOver80}; }

 private:
  static Tensor leaf(const Shape& shape, uint32_t seed, Device device) {
    Tensor t = to_device(test::random_tensor(shape, seed), device);
    return t.set_requires_grad();
  }
};

struct Result {
  std::vector<float> kl, depth, evaluated;
  std::vector<std::vector<float>> gradients;
};

Result run_step(Device device, DpmHeadWay way, int64_t first_row) {
  const Problem problem(device);
  Result result;
  {
    const NoGrad no_grad;
    result.evaluated = to_vector<float>(dpm_depth(problem.map(), way));
  }
  const DpmOutput output = dpm_loss(problem.map(), problem.teacher, {.first_row = first_row}, way);
  result.kl = to_vector<float>(output.kl);
  result.depth = to_vector<float>(output.depth);
  backward(output.kl);
  for (const Tensor& leaf : {problem.x, problem.head.weight, problem.head.bias})
    result.gradients.push_back(to_vector<float>(leaf.grad()));
  return result;
}

void expect_same(const Result& found, const Result& expected) {
  EXPECT_LE(test::relative_error(found.kl, expected.kl), 1e-6);
  EXPECT_LE(test::relative_error(found.depth, expected.depth), 1e-6);
  EXPECT_LE(test::relative_error(found.evaluated, expected.evaluated), 1e-6);
  for (size_t i = 0; i < expected.gradients.size(); ++i)
    EXPECT_LE(test::relative_error(found.gradients[i], expected.gradients[i]), 1e-5) << i;  // sums of 240 products
}

TEST(DpmMap, BothWaysAreTheSame) {
  for (const int64_t first_row : {0, 4})
    expect_same(run_step(Device::kCpu, DpmHeadWay::kFused, first_row),
                run_step(Device::kCpu, DpmHeadWay::kStored, first_row));
}

TEST(DpmMap, LogitsOfOnesOwnServeAsWell) {
  const Problem problem(Device::kCpu);
  const DpmMap stored(dpm_logits(problem.map()), kBinsOver80);
  EXPECT_EQ(stored.shape(), (Shape{2, kHeight, kWidth, kBins}));
  EXPECT_EQ(to_vector<float>(dpm_depth(stored)), to_vector<float>(dpm_depth(problem.map(), DpmHeadWay::kStored)));
}

// Where there are no kernels that fuse, as for these channels, the logits are stored.
TEST(DpmMap, LossGradientsAndDepthOnTheDeviceAreThoseOfTheCpu) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  EXPECT_FALSE(dpm_head_supported(Device::kCuda, DType::kFloat, kChannels, kBinsOver80));
  for (const DpmHeadWay way : {DpmHeadWay::kStored, DpmHeadWay::kFused})
    for (const int64_t first_row : {0, 4})
      expect_same(run_step(Device::kCuda, way, first_row), run_step(Device::kCpu, DpmHeadWay::kStored, first_row));
}

TEST(DpmMap, ChannelsPastTheBinsAreZero) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  const NoGrad no_grad;
  EXPECT_EQ(stored_logits(Problem(Device::kCpu).x, Problem(Device::kCpu).head).size(3), kBins);
  const Problem problem(Device::kCuda);
  const Tensor padded = stored_logits(problem.x, problem.head);
  ASSERT_EQ(padded.size(3), 24);
  const std::vector<float> logits = to_vector<float>(padded);
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool padding = static_cast<int64_t>(i % 24) >= kBins;
    ASSERT_EQ(logits[i] == 0.0f, padding) << i;
  }
  EXPECT_EQ(dpm_logits(problem.map()).size(3), kBins);
}

}  // namespace
}  // namespace depthstill
