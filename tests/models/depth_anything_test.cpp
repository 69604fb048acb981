// Depth Anything V2 with weights from an integer hash, against numbers that the published code gave in double
// precision for the same weights, and the published parameter counts.
#include "models/depth_anything.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/device.h"
#include "engine/optim.h"
#include "losses/tie_kd.h"
#include "models/model_table.h"
#include "tests/models/hashed_network.h"

namespace depthstill {
namespace {

using test::fill_with_hash;
using test::hash_image;

// Those that are never run included.
std::map<std::string, std::string> published_names(const DepthModel& student) {
  std::map<std::string, std::string> names;
  for (const StateEntry& entry : student.state()) names[entry.name] = entry.name;
  for (const std::string& name : student.dead_parameter_names()) names[name] = name;
  return names;
}

std::unique_ptr<DepthAnything> hashed(const char* name) {
  auto student = std::make_unique<DepthAnything>(name, std::get<DepthAnythingConfig>(find_model(name).config),
                                                 ModelOptions{.head = Head::kRelative});
  fill_with_hash(*student, published_names(*student));
  student->eval();
  return student;
}

struct Golden {
  const char* name;
  int64_t height, width;
  std::array<double, 3> first_token, last_token;  // first three channels: tap 0 token 0, tap 3 last token
  std::array<double, 3> corner;                   // raw output at [0, 0], [H / 2, W / 2], [-1, -1]
  double mean, deviation, minimum, maximum, mean_relu;
};

constexpr Golden kGolden[] = {
    {"dpt_s",
     70,
     98,
     {.665179, .140233, -2.111699},
     {-.635552, -.359745, -1.434716},
     {-.426367, 1.186698, -.213534},
     .520503,
     .488234,
     -1.088897,
     1.880171,
     .564250},
    {"dpt_b",
     70,
     98,
     {1.159797, -.092120, -2.696136},
     {-2.045005, -1.319151, -2.837869},
     {.066642, 2.115344, .264255},
     .298029,
     .881906,
     -1.829513,
     2.814253,
     .523924},
    {"dpt_s",
     518,
     518,
     {.289224, .216512, -1.570262},
     {1.116258, -.981601, -1.831349},
     {-.299221, 1.571405, -.454653},
     1.197963,
     .688772,
     -1.602318,
     3.863648,
     1.208720},
};

class DepthAnythingGolden : public testing::TestWithParam<Golden> {};

void expect_output(const Golden& golden, const Tensor& raw, double tolerance) {
  const std::vector<float> o = to_vector<float>(raw);
  const auto at = [&](int64_t y, int64_t x) { return o[static_cast<size_t>(y * golden.width + x)]; };
  EXPECT_NEAR(at(0, 0), golden.corner[0], tolerance);
  EXPECT_NEAR(at(golden.height / 2, golden.width / 2), golden.corner[1], tolerance);
  EXPECT_NEAR(at(golden.height - 1, golden.width - 1), golden.corner[2], tolerance);
  double sum = 0, squares = 0, relu = 0;
  for (const float value : o) {
    sum += value;
    squares += double{value} * value;
    relu += std::max(value, 0.0f);
  }
  const auto n = static_cast<double>(o.size());
  EXPECT_NEAR(sum / n, golden.mean, tolerance);
  EXPECT_NEAR(std::sqrt(squares / n - sum / n * sum / n), golden.deviation, tolerance);
  EXPECT_NEAR(*std::min_element(o.begin(), o.end()), golden.minimum, tolerance);
  EXPECT_NEAR(*std::max_element(o.begin(), o.end()), golden.maximum, tolerance);
  EXPECT_NEAR(relu / n, golden.mean_relu, tolerance);
}

TEST_P(DepthAnythingGolden, Fp32) {
  const Golden& golden = GetParam();
  const auto student = hashed(golden.name);
  const Tensor image = hash_image(golden.height, golden.width);
  const NoGrad no_grad;
  const std::vector<Tensor> taps = student->encoder().forward(image);
  ASSERT_EQ(taps.size(), 4u);
  const std::vector<float> first = to_vector<float>(taps.front()), last = to_vector<float>(taps.back());
  const auto dim = static_cast<size_t>(taps.back().size(2));
  constexpr double kTolerance = 2e-4;
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(first[c], golden.first_token[c], kTolerance);
    EXPECT_NEAR(last[last.size() - dim + c], golden.last_token[c], kTolerance);
  }
  expect_output(golden, student->forward_raw(image), kTolerance);
}

TEST_P(DepthAnythingGolden, Bf16) {
  const Golden& golden = GetParam();
  const auto student = hashed(golden.name);
  const NoGrad no_grad;
  const Tensor raw = student->forward_raw(cast(hash_image(golden.height, golden.width), DType::kBf16));
  expect_output(golden, cast(raw, DType::kFloat), 2e-2 * (golden.maximum - golden.minimum));
}

INSTANTIATE_TEST_SUITE_P(Models, DepthAnythingGolden, testing::ValuesIn(kGolden), [](const auto& test) {
  return concat_text(test.param.name, "_", test.param.height, "x", test.param.width);
});

TEST(DepthAnything, PositionsAreResizedAsTheReferenceDoes) {
  const auto student = hashed("dpt_s");
  const NoGrad no_grad;
  const Tensor positions = student->encoder().position_embedding(5, 7);
  ASSERT_EQ(positions.shape(), (Shape{1, 36, 384}));
  const std::vector<float> values = to_vector<float>(positions);
  const double first[] = {-.0476450, -.1317251, -.0078987}, last[] = {.0290213, .0567288, .1998764};
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(values[384 + c], first[c], 1e-5);
    EXPECT_NEAR(values[35 * 384 + c], last[c], 1e-5);
  }
}

TEST(DepthAnything, ParameterCountsAreThePublishedOnes) {
  // depth_model_test.cpp compares the table with the networks.
  EXPECT_EQ(find_model("dpt_b").counts.parameters, 97470785);
  EXPECT_EQ(find_model("dpt_l").counts.parameters, 335315649);
  const auto small = make_model("dpt_s", {.head = Head::kRelative});
  EXPECT_EQ(small->reference_parameter_count(), 24785089);
  EXPECT_EQ(small->state().size() + small->dead_parameter_names().size(), 239u);
  EXPECT_EQ(small->parameter_count(), 24785089 - 73856 - 384);
}

// Two blocks of two heads, a giant's MLP: what needs no published weights is checked on a small network.
DepthAnythingConfig tiny_config(bool swiglu) {
  return {{.dim = 32, .depth = 4, .heads = 2, .taps = {0, 1, 2, 3}, .swiglu = swiglu, .grid = 3},
          {.dim = 32, .features = 8, .out_channels = {8, 8, 16, 16}}};
}

TEST(DepthAnything, MetricHeadIsScaledSigmoidAndRowsAreCut) {
  DepthAnything student("tiny", tiny_config(true), {.head = Head::kRegression, .d_max = 20.0f});
  student.initialize(3);
  const NoGrad no_grad;
  const Tensor image = hash_image(42, 56);
  const Tensor depth = student.forward(image).map, lower = student.forward(image, 10).map;
  ASSERT_EQ(depth.shape(), (Shape{1, 42, 56}));
  ASSERT_EQ(lower.shape(), (Shape{1, 32, 56}));
  const std::vector<float> all = to_vector<float>(depth), some = to_vector<float>(lower);
  EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + 10 * 56));
  for (const float metres : all) {
    EXPECT_GT(metres, 0.0f);
    EXPECT_LT(metres, 20.0f);
  }
}

TEST(DepthAnything, EveryParameterGetsAGradient) {
  for (const bool swiglu : {false, true}) {
    DepthAnything student("tiny", tiny_config(swiglu), {.head = Head::kRegression});
    student.initialize(4);
    const Tensor y = student.forward(hash_image(28, 42)).map;
    backward(y, tensor<float>(y.shape(), std::vector<float>(static_cast<size_t>(y.numel()), 1.0f)));
    for (const StateEntry& entry : student.parameters()) {
      ASSERT_TRUE(entry.tensor->grad().defined()) << entry.name;
      const std::vector<float> gradient = to_vector<float>(entry.tensor->grad());
      EXPECT_TRUE(std::any_of(gradient.begin(), gradient.end(), [](float v) { return v != 0.0f; })) << entry.name;
      EXPECT_TRUE(std::all_of(gradient.begin(), gradient.end(), [](float v) { return std::isfinite(v); }))
          << entry.name;
    }
  }
}

// One distillation step, every kernel of which is the CUDA one (in the emulator; the products are stand-ins there).
TEST(DepthAnything, ADistillationStepIsTheSameOnBothDevices) {
  if (!built_with_cuda()) enable_emulated_cuda();
  if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  for (const bool swiglu : {false, true}) {
    std::vector<std::vector<float>> results[2];
    for (const Device device : {Device::kCpu, Device::kCuda}) {
      DepthAnything student("tiny", tiny_config(swiglu), {.head = Head::kRegression});
      student.initialize(5);
      student.to(device);
      AdamW optimizer(student.parameter_tensors(), {.lr = 1e-3, .params = {}});
      const Tensor teacher = tensor<float>({1, 28, 42}, std::vector<float>(28 * 42, 30.0f), device);
      const Tensor image = to_device(hash_image(28, 42), device);
      const LossResult loss = tie_kd_loss(student.forward(image), teacher, {}, named_loss("l1"));
      backward(loss.total);
      optimizer.step();
      auto& result = results[device == Device::kCuda ? 1 : 0];
      result.push_back({item(loss.total)});
      for (const Tensor& p : student.parameter_tensors()) {
        result.push_back(to_vector<float>(to_device(p.grad(), Device::kCpu)));
        result.push_back(to_vector<float>(to_device(p, Device::kCpu)));
      }
    }
    ASSERT_EQ(results[0].size(), results[1].size());
    for (size_t i = 0; i < results[0].size(); ++i) {
      float largest = 0;
      for (const float v : results[0][i]) largest = std::max(largest, std::abs(v));
      // Where a gradient is rounding noise, AdamW's first step has its sign alone: weights may differ by twice the lr.
      const bool weight = i > 0 && i % 2 == 0;
      for (size_t k = 0; k < results[0][i].size(); ++k)
        ASSERT_NEAR(results[0][i][k], results[1][i][k], weight ? 2.1e-3f : 1e-4f * largest + 1e-7f) << i;
    }
  }
}

TEST(DepthAnything, RefusesWhatItCannotDo) {
  EXPECT_THROW(make_model("dpt_s", {.head = Head::kDpm}), Error);
  DepthAnything student("tiny", tiny_config(false), {.head = Head::kRelative});
  EXPECT_THROW(student.forward(zeros({1, 28, 30, 3})), Error);
}

}  // namespace
}  // namespace depthstill
