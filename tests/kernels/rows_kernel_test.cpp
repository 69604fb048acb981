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
  RowsShape shape;
  int64_t x_offset = 0, y_offset = 0;  // offsets of the slices of channels
};
// Whole rows (width 1), then maps: into and out of slices, between slices; both, one and neither of widths and offsets
// a multiple of the packs; pixels beyond a block, channels beyond its threads; rows that do not exist above and below.
constexpr Row kShapes[] = {
    {{1, 1, 1, 1, 1, 0}},
    {{2, 7, 4, 1, 5, 3}},
    {{3, 4, 9, 1, 8, -2}},
    {{2, 5, 5, 1, 33, 1}},
    {{1, 3, 2, 1, 16, 5}},
    {{2, 3, 6, 1, 4099, -1}},
    {{1, 2, 3, 1, 8192, -1}},
    {{2, 3, 5, 7, 6, -1}},
    {{2, 5, 3, 9, 24, 2, 24, 56}, 0, 32},
    {{2, 3, 5, 9, 24, -2, 56, 24}, 32, 0},
    {{1, 4, 2, 70, 8, 1, 16, 24}, 8, 16},
    {{1, 2, 4, 5, 320, -1, 832, 320}, 512, 0},
    {{1, 2, 2, 3, 2056, 0, 2056, 2080}, 0, 24},
    {{2, 3, 4, 130, 3, -1, 5, 4}, 1, 1},
    {{1, 3, 2, 11, 8, 1, 12, 20}, 4, 4},
};

size_t index(const RowsShape& s, int64_t rows, int64_t map_channels, int64_t n, int64_t r, int64_t w, int64_t c) {
  return static_cast<size_t>(((n * rows + r) * s.width + w) * map_channels + c);
}

TYPED_TEST(RowsKernel, ShiftsAndFillsWithZeros) {
  using T = TypeParam;
  for (const auto& [s, x_offset, y_offset] : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.batch << " x " << s.in_rows << " to " << s.out_rows << " rows of " << s.width
                                      << " x " << s.channels << ", shift " << s.shift << ", of " << s.x_channels
                                      << " in " << s.y_channels);
    const auto in = static_cast<size_t>(s.batch * s.in_rows * s.width * s.x_channels);
    const auto out = static_cast<size_t>(s.batch * s.out_rows * s.width * s.y_channels);
    const auto x = random_values<T>(in, 1);
    // Other channels of y keep what they hold.
    std::vector<double> expected(out, std::numeric_limits<double>::quiet_NaN());
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t r = 0; r < s.out_rows; ++r) {
        const int64_t from = r + s.shift;
        const bool exists = from >= 0 && from < s.in_rows;
        for (int64_t w = 0; w < s.width; ++w) {
          for (int64_t c = 0; c < s.channels; ++c) {
            expected[index(s, s.out_rows, s.y_channels, n, r, w, y_offset + c)] =
                exists ? to_double(x[index(s, s.in_rows, s.x_channels, n, from, w, x_offset + c)]) : 0.0;
          }
        }
      }
    }

    auto y = nan_values<T>(out);
    cpu::shift_rows(cpu_stream(), s, x.data() + x_offset, y.data() + y_offset);
    EXPECT_EQ(max_relative_error(y, expected), 0.0);
    for_each_schedule([&] {
      const DeviceArray<T> x_device(x);
      DeviceArray<T> y_device(out);
      cuda::shift_rows(cuda_stream(), s, x_device.data() + x_offset, y_device.data() + y_offset);
      EXPECT_EQ(max_relative_error(y_device.host(), expected), 0.0);
    });
  }
}

}  // namespace
}  // namespace depthstill
