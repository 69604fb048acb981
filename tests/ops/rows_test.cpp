#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

TEST(CropRows, KeepsARangeOfRows) {
  const Op op = [](const std::vector<Tensor>& in) { return crop_rows(in[0], 2, 3); };
  for (const Shape& shape : {Shape{2, 7, 3, 4}, Shape{3, 5, 6}}) {
    const std::vector<Tensor> inputs = {random_tensor(shape, 1)};
    expect_gradients(op, inputs, {}, {0.1f, 1e-4});
    expect_same_on_devices(op, inputs, {}, 0.0);
  }
  const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(values_of(crop_rows(tensor<float>({2, 4, 1}, values), 1, 2)), (std::vector<float>{2, 3, 6, 7}));
}

TEST(PadRows, AddsRowsOfZeros) {
  const Op op = [](const std::vector<Tensor>& in) { return pad_rows(in[0], 2, 1); };
  const std::vector<Tensor> inputs = {random_tensor({2, 3, 4, 5}, 2)};
  expect_gradients(op, inputs, {}, {0.1f, 1e-4});
  expect_same_on_devices(op, inputs, {}, 0.0);
  const std::vector<float> values = {1, 2, 3, 4};
  EXPECT_EQ(values_of(pad_rows(tensor<float>({2, 2, 1}, values), 1, 1)), (std::vector<float>{0, 1, 2, 0, 0, 3, 4, 0}));
}

TEST(CropRows, SaysWhatItNeeds) {
  const Tensor x = random_tensor({2, 7, 3, 4}, 1);
  EXPECT_THROW(crop_rows(x, 5, 3), Error);
  EXPECT_THROW(crop_rows(x, -1, 3), Error);
  EXPECT_THROW(crop_rows(random_tensor({7, 3}, 1), 0, 3), Error);
  EXPECT_THROW(pad_rows(x, -1, 0), Error);
}

}  // namespace
}  // namespace depthstill
