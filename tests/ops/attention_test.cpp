#include "engine/ops.h"
#include "kernels/core/error.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

struct Row {
  Shape qkv;
  int64_t heads;
};

TEST(Attention, GradientsAndDevices) {
  for (const Row& row : {Row{{2, 7, 24}, 2}, Row{{1, 33, 48}, 1}, Row{{1, 1, 12}, 1}}) {
    SCOPED_TRACE(::testing::Message() << row.qkv << " heads " << row.heads);
    const Op op = [&](const std::vector<Tensor>& in) { return attention(in[0], row.heads); };
    const std::vector<Tensor> inputs = {random_tensor(row.qkv, 1, -1.5f, 2.0f)};
    expect_gradients(op, inputs, {}, {1e-2f, 2e-3});
    expect_same_on_devices(op, inputs, {}, 1e-5);
    expect_same_on_devices(op, {to_bf16(inputs[0])}, {}, 2e-2);
  }
}

// Equal keys: every query sees the mean of the values, each head its own channels.
TEST(Attention, EqualKeysAverageTheValues) {
  std::vector<float> qkv;
  for (int t = 0; t < 3; ++t) {
    const auto v = static_cast<float>(t);
    for (const float x : {v, -v, 1.0f, 2.0f, 3.0f + v, 10.0f * v}) qkv.push_back(x);
  }
  const Tensor y = attention(tensor<float>({1, 3, 6}, qkv), 2);
  for (size_t t = 0; t < 3; ++t) {
    EXPECT_NEAR(values_of(y)[2 * t], 4.0f, 1e-6f);
    EXPECT_NEAR(values_of(y)[2 * t + 1], 10.0f, 1e-5f);
  }
}

TEST(Attention, NamesWhatItExpected) {
  const Tensor qkv = random_tensor({2, 5, 24}, 1);
  EXPECT_THROW(attention(qkv, 3), Error);
  EXPECT_THROW(attention(qkv, 0), Error);
  EXPECT_THROW(attention(random_tensor({2, 5, 25}, 1), 1), Error);
  EXPECT_THROW(attention(random_tensor({5, 24}, 1), 1), Error);
}

}  // namespace
}  // namespace depthstill
