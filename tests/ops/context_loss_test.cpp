#include "engine/ops.h"
#include "engine/ops_loss.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

// Values are at least 0.02 apart, so that differences of small steps cross no corner of a median.
Tensor spaced_map(const Shape& shape, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f + 0.02f * static_cast<float>(i);
  std::shuffle(values.begin(), values.end(), std::mt19937(seed));
  return tensor<float>(shape, values);
}

TEST(ContextLoss, Gradients) {
  const Shape shape{2, 6, 7};
  const Tensor y = spaced_map(shape, 1);
  for (const auto norm : {ContextNorm::kHybrid, ContextNorm::kGlobal, ContextNorm::kNone}) {
    const Op op = [&](const std::vector<Tensor>& in) {
      const Tensor teacher = to_device(y, in[0].device());
      return context_loss(in[0], teacher, context_statistics(in[0], teacher), {norm});
    };
    expect_gradients(op, {spaced_map(shape, 2)}, {}, {2e-4f, 2e-2});
    expect_same_on_devices(op, {spaced_map(shape, 2)});
  }
}

TEST(ContextLoss, BothLossesShareStatistics) {
  const Shape shape{2, 9, 8};
  const Tensor y = spaced_map(shape, 3);
  const Op op = [&](const std::vector<Tensor>& in) {
    const Tensor teacher = to_device(y, in[0].device());
    const Contexts contexts = context_statistics(in[0], teacher);
    return add(context_loss(in[0], teacher, contexts), scale(gradient_matching(in[0], teacher, contexts), 2.0f));
  };
  expect_gradients(op, {spaced_map(shape, 4)}, {}, {2e-4f, 2e-2});
  expect_same_on_devices(op, {spaced_map(shape, 4)});
}

TEST(ContextLoss, SaysWhatItNeeds) {
  const Tensor x = random_tensor({2, 9, 8}, 1), y = random_tensor({2, 9, 8}, 2);
  const Contexts contexts = context_statistics(x, y),
                 open = context_statistics(x, y, {ContextKind::kRange, true, true});
  EXPECT_THROW(context_statistics(x, random_tensor({2, 8, 9}, 1)), Error);
  EXPECT_THROW(context_statistics(to_bf16(x), y), Error);
  EXPECT_THROW(context_loss(x, y, {}), Error);
  EXPECT_THROW(context_loss(x, y, contexts, {.trim = 1.5}), Error);
  EXPECT_NO_THROW(context_loss(x, y, {}, {ContextNorm::kNone}));
  EXPECT_THROW(gradient_matching(x, y, contexts, {.scales = 5}), Error);
  EXPECT_THROW(gradient_matching(x, y, open), Error);
}

}  // namespace
}  // namespace depthstill
