#include "engine/ops.h"
#include "engine/ops_loss.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

// The anchor alone; values 0.02 apart, so that differences of small steps leave their order.
TEST(ContextScales, GradientOfTheAnchor) {
  const Shape shape{2, 6, 7};
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f + 0.02f * static_cast<float>(i);
  std::shuffle(values.begin(), values.end(), std::mt19937(3));
  const Tensor x = tensor<float>(shape, values), y = random_tensor(shape, 4, 0.0f, 9.0f);
  const Op op = [&](const std::vector<Tensor>& in) {
    const Tensor teacher = to_device(y, in[0].device());
    return context_scales(in[0], context_statistics(in[0], teacher)).anchor;
  };
  expect_gradients(op, {x}, {}, {2e-4f, 2e-2});
  expect_same_on_devices(op, {x});
}

TEST(ContextScales, FiguresHaveNoHistory) {
  Tensor x = random_tensor({1, 5, 6}, 1, 1.0f, 2.0f).set_requires_grad();
  const ScaleFigures scales = context_scales(x, context_statistics(x, random_tensor({1, 5, 6}, 2)));
  EXPECT_TRUE(scales.anchor.requires_grad());
  for (const Tensor& figure :
       {scales.t_student, scales.s_student, scales.t_teacher, scales.s_teacher, scales.bounded}) {
    EXPECT_FALSE(figure.requires_grad());
  }
  EXPECT_THROW(context_scales(random_tensor({1, 6, 5}, 1), context_statistics(x, x)), Error);
}

}  // namespace
}  // namespace depthstill
