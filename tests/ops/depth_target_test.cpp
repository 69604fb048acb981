#include "engine/ops_loss.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(DepthTarget, CutsRowsAndTalliesOnBothDevices) {
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    if (device == Device::kCuda && !second_device()) continue;
    const Tensor target = to_device(tensor<float>({1, 3, 2}, std::vector<float>{1, 2, 90, 4, 5, 0}), device);
    const Tensor tally = zeros({kTallyElements}, DType::kInt64, device);
    const Tensor y = depth_target(target, {1.0f, 80.0f}, {.rows = 2}, tally);
    EXPECT_EQ(values_of(y), (std::vector<float>{0, 4, 5, 0}));
    EXPECT_EQ(values_of(depth_target(target, {}, {.rows = 2}, tally)), (std::vector<float>{90, 4, 5, 0}));
    EXPECT_EQ(values_of(depth_target(target, {1.0f, 80.0f}, {.mode = TargetMode::kClamp})),
              (std::vector<float>{1, 2, 80, 4, 5, 0}));
    EXPECT_EQ(read_tally(tally).pixels, 5);
    EXPECT_EQ(read_tally(tally).empty, 0);
    depth_target(target, {1.0f, 3.0f}, {.first_row = 1}, tally);
    EXPECT_EQ(read_tally(tally).pixels, 5);
    EXPECT_EQ(read_tally(tally).empty, 1);
  }
}

TEST(DepthTarget, SaysWhatItNeeds) {
  const Tensor x = random_tensor({2, 5, 7}, 1, 1.0f, 2.0f);
  EXPECT_THROW(depth_target(to_bf16(x), {}), Error);
  EXPECT_THROW(depth_target(x, {}, {.rows = 6}), Error);
  EXPECT_THROW(depth_target(x, {}, {.rows = 2, .first_row = 2}), Error);
  EXPECT_THROW(depth_target(x, {}, {}, zeros({1}, DType::kInt64)), Error);
}

}  // namespace
}  // namespace depthstill
