#include "kernels/rows.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class RowsKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(RowsKernel, Types);

struct Row {
  int64_t batch, in_rows, out_rows, row_size, shift;
};
constexpr Row kShapes[] = {
    {1, 1, 1, 1, 0},  {2, 7, 4, 5, 3},     {3, 4, 9, 8, -2},    {2, 5, 5, 33, 1},
    {1, 3, 2, 16, 5}, {2, 3, 6, 4099, -1}, {1, 2, 3, 8192, -1},
};

TYPED_TEST(RowsKernel, ShiftsAndFillsWithZeros) {
  using T = TypeParam;
  for (const Row& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.batch << " x " << s.in_rows << " to " << s.out_rows << " rows of "
                                      << s.row_size << ", shift " << s.shift);
    const auto in = static_cast<size_t>(s.batch * s.in_rows * s.row_size);
    const auto out = static_cast<size_t>(s.batch * s.out_rows * s.row_size);
    const auto x = random_values<T>(in, 1);
    std::vector<double> expected;
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t r = 0; r < s.out_rows; ++r) {
        const int64_t from = r + s.shift;
        for (int64_t i = 0; i < s.row_size; ++i) {
          expected.push_back(from < 0 || from >= s.in_rows
                                 ? 0.0
                                 : to_double(x[static_cast<size_t>((n * s.in_rows + from) * s.row_size + i)]));
        }
      }
    }

    auto y = nan_values<T>(out);
    cpu::shift_rows(cpu_stream(), s.batch, s.in_rows, s.out_rows, s.row_size, s.shift, x.data(), y.data());
    EXPECT_EQ(max_relative_error(y, expected), 0.0);
    for_each_schedule([&] {
      const DeviceArray<T> x_device(x);
      DeviceArray<T> y_device(out);
      cuda::shift_rows(cuda_stream(), s.batch, s.in_rows, s.out_rows, s.row_size, s.shift, x_device.data(),
                       y_device.data());
      EXPECT_EQ(max_relative_error(y_device.host(), expected), 0.0);
    });
  }
}

}  // namespace
}  // namespace depthstill
