// The ops of local-global distillation and of feature alignment.
#include "engine/ops.h"
#include "engine/ops_loss.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

Tensor windows_of(const std::vector<int32_t>& values) {
  return tensor<int32_t>({static_cast<int64_t>(values.size()) / 4, 4}, values);
}

TEST(ResizeWindows, GradientsAndDevices) {
  const Op op = [](const std::vector<Tensor>& in) {
    return resize_windows(in[0], to_device(windows_of({0, 1, 2, 13, 1, 0, 4, 9, 1, 3, 0, 20}), in[0].device()), 5);
  };
  const Tensor x = random_tensor({2, 8, 8}, 1);
  expect_gradients(op, {x});
  expect_same_on_devices(op, {x}, {}, 1e-6);
}

TEST(ResizeWindows, RefusesWhatDoesNotFit) {
  const Tensor x = random_tensor({2, 8, 8}, 1);
  for (const std::vector<int32_t>& window : std::vector<std::vector<int32_t>>{
           {2, 0, 0, 8}, {-1, 0, 0, 8}, {0, 4, 0, 8}, {0, 0, -1, 8}, {0, 0, 0, 4}, {0, 0, 0, 20000}}) {
    EXPECT_THROW(resize_windows(x, windows_of(window), 5), Error) << window[0] << ' ' << window[1];
  }
  EXPECT_THROW(resize_windows(x, random_tensor({1, 4}, 1), 5), Error);
  EXPECT_THROW(resize_windows(random_tensor({1, 8, 7}, 1), windows_of({0, 0, 0, 8}), 5), Error);
}

TEST(FeatureCosine, GradientsAndDevices) {
  const Tensor f = random_tensor({2, 9, 20}, 1), g = random_tensor({2, 9, 20}, 2);
  for (const float alpha : {0.0f, 0.15f, 5.0f}) {
    const Op op = [&](const std::vector<Tensor>& in) {
      return feature_cosine(in[0], to_device(in[0].dtype() == DType::kBf16 ? to_bf16(g) : g, in[0].device()), alpha);
    };
    if (alpha < 1.0f) expect_gradients(op, {f}, {}, {1e-3f, 2e-2});
    expect_same_on_devices(op, {f}, {}, 1e-5);
    expect_same_on_devices(op, {to_bf16(f)}, {}, 0x1p-8);
  }
  const Tensor far = feature_cosine(f, g, 5.0f);
  EXPECT_EQ(item(far), 0.0f) << "all are alike enough";
  EXPECT_THROW(feature_cosine(f, random_tensor({2, 9, 21}, 2), 0.0f), Error);
}

}  // namespace
}  // namespace depthstill
