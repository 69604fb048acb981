#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

Op transposed(int stride) {
  return [=](const std::vector<Tensor>& in) { return conv_transpose2d(in[0], in[1], in[2], stride); };
}

TEST(ConvTranspose2d, EveryInputMakesABlock) {
  const int64_t N = 2, H = 3, W = 2, I = 5, O = 4, R = 3;
  const Tensor x = random_tensor({N, H, W, I}, 1), weight = random_tensor({R, R, O, I}, 2),
               bias = random_tensor({O}, 3);
  const std::vector<float> xs = to_vector<float>(x), ws = to_vector<float>(weight), bs = to_vector<float>(bias);
  std::vector<float> expected;
  for (int64_t n = 0; n < N; ++n)
    for (int64_t h = 0; h < H * R; ++h)
      for (int64_t w = 0; w < W * R; ++w)
        for (int64_t o = 0; o < O; ++o) {
          double sum = bs[static_cast<size_t>(o)];
          for (int64_t i = 0; i < I; ++i) {
            const int64_t from = ((n * H + h / R) * W + w / R) * I + i, at = ((h % R * R + w % R) * O + o) * I + i;
            sum += static_cast<double>(xs[static_cast<size_t>(from)]) * ws[static_cast<size_t>(at)];
          }
          expected.push_back(static_cast<float>(sum));
        }
  const Tensor y = conv_transpose2d(x, weight, bias, static_cast<int>(R));
  EXPECT_EQ(y.shape(), (Shape{N, H * R, W * R, O}));
  EXPECT_LE(relative_error(to_vector<float>(y), expected), 1e-6);
}

TEST(ConvTranspose2d, GradientsAndDevices) {
  const std::vector<Tensor> in = {random_tensor({2, 3, 4, 6}, 1), random_tensor({2, 2, 5, 6}, 2),
                                  random_tensor({5}, 3)};
  expect_gradients(transposed(2), in);
  expect_gradients(transposed(2), {in[0], in[1], Tensor()});
  expect_same_on_devices(transposed(2), in);
  expect_same_on_devices(transposed(2), {to_bf16(in[0]), in[1], in[2]}, {}, 1e-2);
}

TEST(ConvTranspose2d, SaysWhatItNeeds) {
  const Tensor x = random_tensor({1, 3, 4, 6}, 1), weight = random_tensor({3, 3, 5, 6}, 2);
  try {
    conv_transpose2d(x, weight, Tensor(), 2);
    FAIL() << "a kernel of 3 with stride 2 was accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "conv_transpose2d: expected a kernel of the size of the stride 2, got 3 x 3");
  }
  EXPECT_THROW(conv_transpose2d(x, random_tensor({2, 2, 6, 5}, 2), Tensor(), 2), Error);
}

}  // namespace
}  // namespace depthstill
