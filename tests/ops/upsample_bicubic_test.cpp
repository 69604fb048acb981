#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(UpsampleBicubic, GradientsAndDevices) {
  const Op larger = [](const std::vector<Tensor>& in) { return upsample_bicubic(in[0], 7, 11, 0.0, 0.0); };
  const Op scaled = [](const std::vector<Tensor>& in) { return upsample_bicubic(in[0], 3, 9, 3.1 / 4, 9.1 / 5); };
  const Tensor x = random_tensor({2, 4, 5, 3}, 1);
  for (const Op& op : {larger, scaled}) {
    expect_gradients(op, {x}, {}, {0.1f, 1e-4});  // linear, so the step may be large
    expect_same_on_devices(op, {x}, {}, 1e-6);
    expect_same_on_devices(op, {to_bf16(x)}, {}, 4e-3);
  }
}

TEST(UpsampleBicubic, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({1, 4, 5, 2}, 2);
  EXPECT_THROW(upsample_bicubic(x, 0, 10, 0.0, 0.0), Error);
  EXPECT_THROW(upsample_bicubic(x, 8, 10, -1.0, 0.0), Error);
  EXPECT_THROW(upsample_bicubic(random_tensor({4, 5, 2}, 3), 8, 10, 0.0, 0.0), Error);
}

}  // namespace
}  // namespace depthstill
