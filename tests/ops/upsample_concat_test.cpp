#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

struct Case {
  int64_t in_height, in_width, in_first_row, channels;  // sizes of x
  int64_t height, width, first_row, tap_channels;       // sizes of the tap; y starts at first_row
};
// x is enlarged, kept, reduced; rows are left out on both sides, on one, on none; channels are those of the students
// beside wide maps, and odd ones.
constexpr Case kCases[] = {
    {4, 5, 0, 6, 7, 10, 0, 3},      {11, 5, 4, 512, 22, 10, 9, 24}, {11, 6, 2, 512, 11, 6, 2, 32},
    {6, 7, 1, 96, 6, 7, 3, 320},    {5, 4, 0, 17, 9, 9, 4, 5},      {9, 3, 3, 264, 18, 5, 8, 96},
    {3, 40, 0, 128, 6, 80, 0, 320}, {9, 8, 2, 33, 5, 4, 3, 7},      {1, 3, 0, 8, 1, 3, 0, 16},
};

std::vector<Tensor> inputs_of(const Case& c) {
  return {random_tensor({2, c.in_height - c.in_first_row, c.in_width, c.channels}, 1),
          random_tensor({2, c.height, c.width, c.tap_channels}, 2)};
}

Op join(const Case& c) {
  return [c](const std::vector<Tensor>& in) {
    return upsample_concat(in[0], {c.in_first_row, c.in_height}, in[1], c.first_row, true);
  };
}

// Channels [first, first + count) of a (..., channels) array.
std::vector<float> channels_of(const std::vector<float>& x, int64_t channels, int64_t first, int64_t count) {
  std::vector<float> slice;
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t c = static_cast<int64_t>(i) % channels;
    if (c >= first && c < first + count) slice.push_back(x[i]);
  }
  return slice;
}

// x and its gradient for the channels [first, ...) of the gradient that evaluate() sends back into the joined map.
OpResult apart(const Op& op, const Tensor& x, const Case& c, int64_t first, int64_t count, Device device) {
  const Tensor moved = clone(to_device(x, device)).set_requires_grad();
  const Tensor y = op({moved});
  const int64_t channels = c.channels + c.tap_channels;
  Tensor dy = random_tensor({2, c.height - c.first_row, c.width, channels}, 77);
  if (x.dtype() == DType::kBf16) dy = to_bf16(dy);
  Tensor slice = tensor<float>(y.shape(), channels_of(values_of(dy), channels, first, count));
  if (x.dtype() == DType::kBf16) slice = to_bf16(slice);
  backward(y, to_device(slice, device));
  return {values_of(y), {values_of(moved.grad())}};
}

// The bits are the same as from an op each; but where a compiler fuses multiply-adds in one loop and not in the other,
// the sums of the resize's gradient round differently.
TEST(UpsampleConcat, EqualsResizingCroppingAndJoining) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.channels << " + " << c.tap_channels << " channels at " << c.height);
    const Op resize = [&](const std::vector<Tensor>& in) {
      if (c.in_height == c.height && c.in_width == c.width)
        return crop_rows(in[0], c.first_row - c.in_first_row, c.height - c.first_row);
      return upsample_bilinear(in[0], {c.in_first_row, c.in_height}, {c.first_row, c.height}, c.width, true);
    };
    const Op crop = [&](const std::vector<Tensor>& in) {
      return crop_rows(in[0], c.first_row, c.height - c.first_row);
    };
    for (const Device device : {Device::kCpu, Device::kCuda}) {
      if (device == Device::kCuda && !second_device()) continue;
      for (const DType dtype : {DType::kFloat, DType::kBf16}) {
        SCOPED_TRACE(testing::Message() << name_of(dtype) << " on " << device);
        std::vector<Tensor> inputs = inputs_of(c);
        if (dtype == DType::kBf16) inputs = {to_bf16(inputs[0]), to_bf16(inputs[1])};
        const OpResult joined = evaluate(join(c), inputs, {true, true}, device);
        const OpResult x = apart(resize, inputs[0], c, 0, c.channels, device);
        const OpResult tap = apart(crop, inputs[1], c, c.channels, c.tap_channels, device);
        const int64_t channels = c.channels + c.tap_channels;
        EXPECT_EQ(channels_of(joined.y, channels, 0, c.channels), x.y);
        EXPECT_EQ(channels_of(joined.y, channels, c.channels, c.tap_channels), tap.y);
        EXPECT_LE(relative_error(joined.gradients[0], x.gradients[0]), dtype == DType::kBf16 ? 0x1p-8 : 1e-6);
        EXPECT_EQ(joined.gradients[1], tap.gradients[0]);
      }
    }
  }
}

TEST(UpsampleConcat, GradientIsThatOfTheForwardPass) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.channels << " + " << c.tap_channels << " channels at " << c.height);
    expect_gradients(join(c), inputs_of(c), {}, {0.1f, 1e-4});  // linear, so the step may be large
    expect_same_on_devices(join(c), inputs_of(c), {}, 1e-6);
  }
  const Case& c = kCases[1];
  for (const auto& differentiable : {std::vector<bool>{true, false}, std::vector<bool>{false, true}}) {
    const OpResult result = evaluate(join(c), inputs_of(c), differentiable, Device::kCpu);
    EXPECT_EQ(result.gradients[0].empty(), !differentiable[0]);
    EXPECT_EQ(result.gradients[1].empty(), !differentiable[1]);
    expect_gradients(join(c), inputs_of(c), differentiable, {0.1f, 1e-4});
  }
}

TEST(UpsampleConcat, SaysWhatItNeeds) {
  const Tensor x = random_tensor({1, 7, 5, 2}, 1), tap = random_tensor({1, 22, 10, 3}, 2);
  try {
    upsample_concat(x, {4, 11}, tap, 7, true);
    FAIL() << "rows above the window were read";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "upsample_concat: output row 7 of 22 reads input row 3 of 11, but x starts at row 4");
  }
  EXPECT_THROW(upsample_concat(x, {4, 11}, tap, 22, true), Error);
  EXPECT_THROW(upsample_concat(x, {3, 11}, tap, 9, true), Error);
  EXPECT_THROW(upsample_concat(x, {4, 11}, random_tensor({2, 22, 10, 3}, 2), 9, true), Error);
  EXPECT_THROW(upsample_concat(x, {4, 11}, to_bf16(tap), 9, true), Error);
  EXPECT_THROW(upsample_concat(x, {4, 11}, random_tensor({22, 10, 3}, 2), 9, true), Error);
}

}  // namespace
}  // namespace depthstill
