#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(Softmax, OverTheLastDimension) {
  const Op op = [](const std::vector<Tensor>& in) { return softmax(in[0]); };
  for (const Shape& shape : {Shape{2, 3, 4, 9}, Shape{5, 17}, Shape{6}}) {
    const std::vector<Tensor> inputs = {random_tensor(shape, 1, -2.0f, 3.0f)};
    expect_gradients(op, inputs, {}, {1e-2f, 2e-3});
    expect_same_on_devices(op, inputs, {}, 1e-6);
    double sum = 0;
    for (const float v : values_of(op(inputs))) sum += static_cast<double>(v);
    EXPECT_NEAR(sum, static_cast<double>(shape.numel() / shape[shape.rank() - 1]), 1e-5);
  }
}

}  // namespace
}  // namespace depthstill
