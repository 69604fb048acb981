#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(UpsampleBilinear, GradientIsThatOfTheForwardPass) {
  for (const bool align_corners : {true, false}) {
    const Op op = [=](const std::vector<Tensor>& in) { return upsample_bilinear(in[0], 7, 11, align_corners); };
    const std::vector<Tensor> inputs = {random_tensor({2, 4, 5, 3}, 1)};
    expect_gradients(op, inputs, {}, {0.1f, 1e-4});  // linear, so the step may be large
    expect_same_on_devices(op, inputs, {}, 1e-6);
  }
}

// A windowed call gives the rows of the whole one, and its gradient is that of the rows that it has.
TEST(UpsampleBilinear, WindowsAreTheRowsOfTheWholeMap) {
  const RowWindow in{4, 11}, out{9, 22};
  const Op windowed = [=](const std::vector<Tensor>& x) {
    return upsample_bilinear(crop_rows(x[0], in.first_row, in.height - in.first_row), in, out, 10, true);
  };
  const Op whole = [=](const std::vector<Tensor>& x) {
    return crop_rows(upsample_bilinear(x[0], out.height, 10, true), out.first_row, out.height - out.first_row);
  };
  const std::vector<Tensor> inputs = {random_tensor({2, 11, 5, 6}, 2)};
  const OpResult a = evaluate(windowed, inputs, {true}, Device::kCpu),
                 b = evaluate(whole, inputs, {true}, Device::kCpu);
  EXPECT_EQ(a.y, b.y);
  EXPECT_LE(relative_error(a.gradients[0], b.gradients[0]), 1e-6);
  expect_same_on_devices(windowed, inputs, {}, 1e-6);
}

TEST(UpsampleBilinear, HalvesAndDoublesInBf16) {
  const Tensor x = to_bf16(random_tensor({1, 3, 4, 8}, 3));
  const Op op = [](const std::vector<Tensor>& in) { return upsample_bilinear(in[0], 6, 8, true); };
  const OpResult y = evaluate(op, {x}, {true}, Device::kCpu);
  const OpResult expected = evaluate(op, {cast(x, DType::kFloat)}, {true}, Device::kCpu);
  EXPECT_LE(relative_error(y.y, expected.y), 0x1p-8);
}

TEST(UpsampleBilinear, SaysWhatItNeeds) {
  const Tensor x = random_tensor({1, 7, 5, 2}, 4);
  try {
    upsample_bilinear(x, RowWindow{4, 11}, RowWindow{7, 22}, 10, true);
    FAIL() << "rows above the window were read";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "upsample_bilinear: output row 7 of 22 reads input row 3 of 11, but x starts at row 4");
  }
  EXPECT_THROW(upsample_bilinear(x, RowWindow{3, 11}, RowWindow{9, 22}, 10, true), Error);  // x has 7 rows, not 8
  EXPECT_THROW(upsample_bilinear(x, 0, 10, true), Error);
  EXPECT_THROW(upsample_bilinear(x, 20000, 10, true), Error);
  EXPECT_THROW(upsample_bilinear(random_tensor({7, 5, 2}, 5), 8, 10, true), Error);
}

}  // namespace
}  // namespace depthstill
