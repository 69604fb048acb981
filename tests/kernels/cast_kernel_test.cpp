#include "kernels/cast.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

// Random values, then halfway cases (to even, both ways), infinities, NaN, overflow and the largest that does not.
std::vector<float> special_values(size_t n) {
  auto x = random_values<float>(n, 1, -1000.0f, 1000.0f);
  const float special[] = {1.00390625f, 1.01171875f, -1.00390625f, INFINITY, -INFINITY,
                           NAN,         3.4e38f,     3.38e38f,     0.0f,     -0.0f};
  for (size_t i = 0; i < std::min(n, std::size(special)); ++i) x[n - 1 - i] = special[i];
  return x;
}

std::vector<uint16_t> bits(const std::vector<bf16>& x) {
  std::vector<uint16_t> result;
  for (const bf16 value : x) result.push_back(value.bits);
  return result;
}

TEST(CastKernel, RoundsToNearestEvenAndBack) {
  for (const size_t offset : {0, 1}) {  // 1: unaligned
    for (const size_t n : {1, 3, 15, 16, 17, 100, 4099}) {
      SCOPED_TRACE(::testing::Message() << n << " elements from " << offset);
      const auto x = special_values(n + offset);
      const auto count = static_cast<int64_t>(n);
      std::vector<bf16> expected(n + offset);
      std::vector<float> back_expected(n + offset);
      for (size_t i = offset; i < n + offset; ++i) {
        expected[i] = bf16(x[i]);
        back_expected[i] = static_cast<float>(expected[i]);
      }
      std::vector<bf16> y(n + offset);
      std::vector<float> back(n + offset);
      for (size_t i = 0; i < offset; ++i) y[i] = expected[i] = bf16(0.0f);
      cpu::cast(cpu_stream(), count, x.data() + offset, y.data() + offset);
      cpu::cast(cpu_stream(), count, y.data() + offset, back.data() + offset);
      EXPECT_EQ(bits(y), bits(expected));
      EXPECT_EQ(max_relative_error(back, back_expected), 0.0);

      for_each_schedule([&] {
        const DeviceArray<float> x_device(x);
        DeviceArray<bf16> y_device(n + offset);
        DeviceArray<float> back_device(std::vector<float>(n + offset, 0.0f));
        cuda::cast(cuda_stream(), count, x_device.data() + offset, y_device.data() + offset);
        cuda::cast(cuda_stream(), count, static_cast<const bf16*>(y_device.data()) + offset,
                   back_device.data() + offset);
        auto rounded = y_device.host();
        for (size_t i = 0; i < offset; ++i) rounded[i] = bf16(0.0f);
        EXPECT_EQ(bits(rounded), bits(expected));
        EXPECT_EQ(max_relative_error(back_device.host(), back_expected), 0.0);
      });
    }
  }
}

}  // namespace
}  // namespace depthstill
