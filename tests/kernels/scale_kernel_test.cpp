#include "kernels/scale.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class ScaleKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(ScaleKernel, Types);

TYPED_TEST(ScaleKernel, ScalesEveryElement) {
  using T = TypeParam;
  for (const size_t offset : {0, 1}) {  // 1: unaligned
    for (const size_t n : {1, 3, 8, 9, 255, 2048, 4099}) {
      SCOPED_TRACE(::testing::Message() << n << " elements from " << offset);
      const auto x = random_values<T>(n + offset, 1);
      std::vector<double> expected;
      for (size_t i = 0; i < n + offset; ++i) expected.push_back(to_double(x[i]) * (i < offset ? 1.0 : -2.75));

      auto y = x;
      cpu::scale(cpu_stream(), static_cast<int64_t>(n), -2.75f, x.data() + offset, y.data() + offset);
      EXPECT_LE(max_relative_error(y, expected), tolerance<T>());
      for_each_schedule([&] {
        DeviceArray<T> device(x);  // y is written over x
        cuda::scale(cuda_stream(), static_cast<int64_t>(n), -2.75f, device.data() + offset, device.data() + offset);
        EXPECT_LE(max_relative_error(device.host(), expected), tolerance<T>());
      });
    }
  }
}

}  // namespace
}  // namespace depthstill
