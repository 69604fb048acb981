// This test counts what a linear layer asks of cuBLASLt on a simulated H100.
#include <gtest/gtest.h>

#include "engine/tensor.h"
#include "kernels/core/dry_run.h"
#include "kernels/linear.h"

namespace depthstill {
namespace {

// The first algorithm that runs is looked for by running it: that call is the first product already.
TEST(LinearPlans, TheFirstCallRunsEveryProductOnce) {
  cuda::enable_dry_run(size_t{1} << 40);
  const LinearShape shape{.rows = 1370, .I = 384, .O = 1152};
  const auto cuda_tensor = [](const Shape& s, DType dtype) { return empty(s, dtype, Device::kCuda); };
  const Tensor x = cuda_tensor({shape.rows, shape.I}, DType::kBf16), dx = empty_like(x);
  const Tensor dy = cuda_tensor({shape.rows, shape.O}, DType::kBf16), y = empty_like(dy);
  const Tensor weight = cuda_tensor({shape.O, shape.I}, DType::kFloat), dweight = empty_like(weight);
  const Tensor bias = cuda_tensor({shape.O}, DType::kFloat), dbias = empty_like(bias);
  const Stream stream = stream_of(Device::kCuda);
  for (int call = 0; call < 2; ++call) {
    cuda::take_dry_run();
    cuda::linear<bf16>(stream, shape, x, weight, bias, y);
    cuda::linear_grad<bf16>(stream, shape, x, weight, dy, dx, dweight, dbias);
    int products = 0, others = 0;
    for (const cuda::Launch& launch : cuda::take_dry_run().launches) {
      launch.where.rfind("cublaslt: product", 0) == 0 ? ++products : ++others;
    }
    EXPECT_EQ(products, 3);
    EXPECT_EQ(others, 2 + 1 + 2) << "weight and bias as bf16; weight again; the sums for dbias and of its chunks";
  }
}

}  // namespace
}  // namespace depthstill
