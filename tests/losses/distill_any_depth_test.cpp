#include "losses/distill_any_depth.h"

#include "engine/ops.h"
#include "models/model_table.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(DistillAnyDepth, AddsUpItsParts) {
  Tensor x = random_tensor({2, 12, 16}, 1, 1.0f, 5.0f).set_requires_grad();
  const Tensor y = random_tensor({2, 12, 16}, 2, 0.0f, 3.0f);
  const LossResult result = cross_context_loss(x, y, {});
  ASSERT_EQ(result.parts.size(), 2u);
  EXPECT_EQ(result.parts[0].first, "sc");
  EXPECT_EQ(result.parts[1].first, "grad");
  EXPECT_FLOAT_EQ(item(result.total), item(result.parts[0].second) + 2.0f * item(result.parts[1].second));
  backward(result.total);
  EXPECT_TRUE(x.grad().defined());
}

TEST(DistillAnyDepth, LeavesOutWhatHasNoWeight) {
  const Tensor x = random_tensor({1, 8, 8}, 1, 1.0f, 5.0f), y = random_tensor({1, 8, 8}, 2, 0.0f, 3.0f);
  DistillOptions options;
  options.lambda_grad = 0.0f;
  options.norm = ContextNorm::kNone;
  const LossResult raw = cross_context_loss(x, y, options);
  ASSERT_EQ(raw.parts.size(), 1u);
  double sum = 0;
  for (size_t i = 0; i < 64; ++i) sum += static_cast<double>(std::fabs(values_of(x)[i] - values_of(y)[i]));
  EXPECT_NEAR(static_cast<double>(item(raw.total)), sum / 64, 1e-6);
  options.lambda_sc = 0.0f;
  EXPECT_THROW(cross_context_loss(x, y, options), Error);
}

TEST(DistillAnyDepth, AnAnchorIsAPartAndScalesAreFigures) {
  Tensor x = random_tensor({2, 12, 16}, 1, 1.0f, 5.0f).set_requires_grad();
  const Tensor y = random_tensor({2, 12, 16}, 2, 0.0f, 3.0f);
  DistillOptions options;
  options.lambda_sc = options.lambda_grad = 0.0f;
  EXPECT_THROW(cross_context_loss(x, y, options), Error) << "an anchor alone teaches nothing";
  options.lambda_sc = 1.0f;
  options.anchor = 0.5f;
  const LossResult result = cross_context_loss(x, y, options);
  ASSERT_EQ(result.parts.size(), 2u);
  EXPECT_EQ(result.parts[1].first, "anchor");
  EXPECT_FLOAT_EQ(item(result.total), item(result.parts[0].second) + 0.5f * item(result.parts[1].second));
  ASSERT_EQ(result.figures.size(), 5u);
  EXPECT_EQ(result.figures[1].first, "s_student");
  EXPECT_NEAR(item(result.figures[1].second), 1.0f, 0.2f) << "of a uniform map over four units";
  const LossResult larger = cross_context_loss(scale(x, 4.0f).detach(), y, options);
  EXPECT_FLOAT_EQ(item(larger.figures[1].second), 4.0f * item(result.figures[1].second));
  EXPECT_FLOAT_EQ(item(larger.parts[0].second), item(result.parts[0].second)) << "which L_sc does not see";
}

// The student's map is read where each patch lies in it, which gives what a map of that patch alone would.
TEST(DistillAnyDepth, PatchesAreAPart) {
  Tensor x = random_tensor({2, 12, 12}, 1, 1.0f, 5.0f).set_requires_grad();
  const Tensor y = random_tensor({2, 12, 12}, 2, 0.0f, 3.0f), maps = random_tensor({2, 5, 5}, 3, 0.0f, 3.0f);
  const PatchMaps patches{maps, tensor<int32_t>({2, 4}, std::vector<int32_t>{1, 0, 7, 12, 0, 3, 2, 12})};
  const LossResult result = cross_context_loss(x, y, {}, patches);
  ASSERT_EQ(result.parts.size(), 3u);
  EXPECT_EQ(result.parts[1].first, "lg");
  EXPECT_FLOAT_EQ(item(result.total), item(result.parts[0].second) + 0.5f * item(result.parts[1].second) +
                                          2.0f * item(result.parts[2].second));
  DistillOptions alone;
  alone.lambda_sc = alone.lambda_grad = 0.0f;
  alone.patch_norm = ContextNorm::kNone;
  const LossResult raw = cross_context_loss(x, y, alone, patches);
  ASSERT_EQ(raw.parts.size(), 1u);
  const std::vector<float> all = values_of(x), teacher = values_of(maps);
  double sum = 0;
  for (size_t i = 0; i < 25; ++i) {
    const size_t row = i / 5, column = i % 5;
    sum += std::fabs(static_cast<double>(all[144 + row * 12 + 7 + column]) - static_cast<double>(teacher[i]));
    sum += std::fabs(static_cast<double>(all[(3 + row) * 12 + 2 + column]) - static_cast<double>(teacher[25 + i]));
  }
  EXPECT_NEAR(static_cast<double>(item(raw.parts[0].second)), sum / 50, 1e-6);
  EXPECT_THROW(cross_context_loss(x, y, alone), Error) << "nothing is left without patches";
}

TEST(DistillAnyDepth, TrainsRelativeHeadsAlone) {
  const auto metric = make_model("mobilenet_unet_small", {.head = Head::kRegression});
  try {
    DistillAnyDepth objective(*metric, {});
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "mobilenet_unet_small: expected a relative head for the loss distill_any_depth, found regression");
  }
}

// As coded, HDN leaves the greatest pixel out of its contexts. Gradient matching counts it all the same.
TEST(DistillAnyDepth, ReferenceStatisticsOfEachPart) {
  const Tensor x = random_tensor({1, 8, 8}, 1, 1.0f, 5.0f), y = random_tensor({1, 8, 8}, 2, 0.0f, 3.0f);
  DistillOptions options;
  options.reference = true;
  const float both = item(cross_context_loss(x, y, options).parts[1].second);
  options.lambda_sc = 0.0f;
  EXPECT_EQ(both, item(cross_context_loss(x, y, options).parts[0].second));
}

}  // namespace
}  // namespace depthstill
