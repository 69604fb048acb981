#include "losses/distill_any_depth.h"

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
