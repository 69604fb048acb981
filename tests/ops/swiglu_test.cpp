#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(Swiglu, GradientsAndDevices) {
  const Op op = [](const std::vector<Tensor>& in) { return swiglu(in[0]); };
  for (const Shape& shape : {Shape{2, 5, 18}, Shape{4, 18}, Shape{18}, Shape{2, 3, 2, 18}}) {
    const std::vector<Tensor> in = {random_tensor(shape, 1, -3.0f, 3.0f)};
    EXPECT_EQ(op(in).size(shape.rank() - 1), 9);
    EXPECT_EQ(op(in).numel(), shape.numel() / 2);
    expect_gradients(op, in, {}, {1e-2f, 1e-3});
    expect_same_on_devices(op, in, {}, 1e-6);
    expect_same_on_devices(op, {to_bf16(in[0])}, {}, 0x1p-8);
  }
  EXPECT_THROW(swiglu(random_tensor({3, 5}, 1)), Error);
}

}  // namespace
}  // namespace depthstill
