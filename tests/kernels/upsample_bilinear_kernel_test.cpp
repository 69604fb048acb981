#include "kernels/upsample_bilinear.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class UpsampleBilinearKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(UpsampleBilinearKernel, Types);

// N, C, in h x w, out h x w, first rows of x and y, whether aligned (each is run both ways), channels of the map that y
// is the last C of. Outputs are larger, equal, smaller; there are odd ratios, single rows and columns, channels around
// the vector widths (4, 8, 16, 64), more columns than a tile of the CPU loops and than a block of the CUDA kernels.
const UpsampleShape kShapes[] = {
    {1, 1, 1, 1, 1, 1, 0, 0},
    {2, 3, 1, 1, 4, 3, 0, 0},
    {1, 5, 4, 3, 1, 1, 0, 0},
    {2, 4, 5, 7, 10, 14, 0, 0},
    {1, 16, 3, 70, 7, 141, 0, 0},
    {1, 67, 4, 3, 9, 5, 0, 0},
    {1, 130, 3, 2, 6, 4, 0, 0},
    {1, 8, 11, 35, 4, 9, 0, 0},
    {2, 17, 6, 6, 6, 6, 0, 0},
    {1, 1, 2, 300, 3, 601, 0, 0},
    {2, 8, 11, 5, 22, 10, 4, 9},
    {1, 5, 44, 3, 88, 7, 13, 28},
    {2, 8, 5, 7, 10, 14, 1, 4, true, 32},
    {1, 264, 3, 2, 6, 5, 0, 0, true, 288},
    {1, 70, 3, 37, 5, 40, 0, 0, true, 73},
    {2, 8, 4, 3, 7, 9, 0, 0, true, 20},
    {1, 12, 3, 5, 6, 10, 0, 0, true, 24},
};

// Position and weights in double, from the formula.
struct Tap {
  int i0, i1;
  double w1;
};
Tap tap(int o, int in, int out, bool align_corners) {
  double s = 0;
  if (align_corners) {
    s = out > 1 ? static_cast<double>(o) * (in - 1) / (out - 1) : 0.0;
  } else {
    s = std::max(0.0, (o + 0.5) * in / out - 0.5);
  }
  const int i0 = static_cast<int>(s + 1e-9);
  return {i0, std::min(i0 + 1, in - 1), s - i0};
}

// Calls f(offset in x, offset in y, weight) for every tap of every output.
template <class F>
void for_each_tap(const UpsampleShape& s, F f) {
  for (int64_t n = 0; n < s.N; ++n) {
    for (int p = s.out_first_row; p < s.out_height; ++p) {
      for (int q = 0; q < s.out_width; ++q) {
        const Tap ty = tap(p, s.in_height, s.out_height, s.align_corners);
        const Tap tx = tap(q, s.in_width, s.out_width, s.align_corners);
        for (int k = 0; k < 4; ++k) {
          const int i = (k / 2 ? ty.i1 : ty.i0) - s.in_first_row, j = k % 2 ? tx.i1 : tx.i0;
          const double w = (k / 2 ? ty.w1 : 1 - ty.w1) * (k % 2 ? tx.w1 : 1 - tx.w1);
          const int64_t from = ((n * s.in_rows() + i) * s.in_width + j) * s.C;
          const int64_t pixel = (n * s.out_rows() + p - s.out_first_row) * s.out_width + q;
          const int64_t to = pixel * s.y_channels + s.y_channels - s.C;
          for (int64_t c = 0; c < s.C; ++c) f(static_cast<size_t>(from + c), static_cast<size_t>(to + c), w);
        }
      }
    }
  }
}

TYPED_TEST(UpsampleBilinearKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (UpsampleShape s : kShapes) {
    for (const bool align_corners : {true, false}) {
      s.align_corners = align_corners;
      SCOPED_TRACE(::testing::Message() << s.N << "x" << s.in_height << "x" << s.in_width << "x" << s.C << " to "
                                        << s.out_height << "x" << s.out_width << "x" << s.y_channels << " from row "
                                        << s.out_first_row << (align_corners ? " aligned" : ""));
      const auto in = static_cast<size_t>(s.N * s.in_rows() * s.in_width * s.C);
      const auto out = static_cast<size_t>(s.N * s.out_rows() * s.out_width * s.y_channels);
      const auto slice = s.y_channels - s.C;
      ASSERT_LE(s.in_first_row, upsample_first_input_row(s.out_first_row, s.in_height, s.out_height, align_corners));
      const auto x = random_values<T>(in, 1);
      auto dy = random_values<T>(out, 2);
      std::vector<double> y_expected(out), dx_expected(in);
      for (size_t i = 0; i < out; ++i) {  // other channels of y keep what they hold, those of dy are not read
        if (static_cast<int64_t>(i) % s.y_channels >= slice) continue;
        y_expected[i] = std::numeric_limits<double>::quiet_NaN();
        dy[i] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
      }
      for_each_tap(s, [&](size_t i, size_t o, double w) {
        y_expected[o] += w * to_double(x[i]);
        dx_expected[i] += w * to_double(dy[o]);
      });

      auto y = nan_values<T>(out), dx = nan_values<T>(in);
      cpu::upsample_bilinear(cpu_stream(), s, x.data(), y.data() + slice);
      cpu::upsample_bilinear_grad(cpu_stream(), s, dy.data() + slice, dx.data());
      EXPECT_LE(max_relative_error(y, y_expected), tolerance<T>(4));
      EXPECT_LE(max_relative_error(dx, dx_expected), tolerance<T>(16));

      for_each_schedule([&] {
        const DeviceArray<T> x_device(x), dy_device(dy);
        DeviceArray<T> y_device(out), dx_device(in);
        cuda::upsample_bilinear(cuda_stream(), s, x_device.data(), y_device.data() + slice);
        cuda::upsample_bilinear_grad(cuda_stream(), s, dy_device.data() + slice, dx_device.data());
        EXPECT_LE(max_relative_error(y_device.host(), y_expected), tolerance<T>(4));
        EXPECT_LE(max_relative_error(dx_device.host(), dx_expected), tolerance<T>(16));
      });
    }
  }
}

// Every (output, input) pair of many sizes: readers() are the outputs with a weight, and weight() agrees with tap().
TEST(UpsampleBilinearKernelAxis, RangesAndWeightsAgreeWithTheTaps) {
  for (const bool align_corners : {true, false}) {
    for (int in = 1; in <= 23; ++in) {
      for (int out = 1; out <= 50; ++out) {
        const UpsampleAxis axis(in, out, align_corners);
        for (int o = 0; o < out; ++o) {
          const UpsampleAxis::Tap tap = axis.tap(o);
          ASSERT_TRUE(tap.i0 >= 0 && tap.i0 < in && tap.w1 >= 0.0f && tap.w1 < 1.0f) << in << " " << out << " " << o;
          for (int i = 0; i < in; ++i) {
            const float expected = (tap.i0 == i ? 1.0f - tap.w1 : 0.0f) + (tap.i1 == i ? tap.w1 : 0.0f);
            ASSERT_NEAR(axis.weight(o, i), expected, 2e-7f) << in << " " << out << " " << o << " " << i;
            const UpsampleAxis::Range range = axis.readers(i);
            ASSERT_TRUE(range.first >= 0 && range.last < out) << in << " " << out << " " << i;
            ASSERT_EQ(axis.weight(o, i) > 0.0f, range.first <= o && o <= range.last) << in << " " << out << " " << o;
          }
        }
      }
    }
  }
}

// The gradient's inner loops have four places.
TEST(UpsampleBilinearKernelAxis, AtMostFourOutputsReadAnInputAtTwiceTheSize) {
  for (const bool align_corners : {true, false}) {
    for (int in = 1; in <= 300; ++in) {
      const UpsampleAxis axis(in, 2 * in, align_corners);
      for (int i = 0; i < in; ++i) {
        const UpsampleAxis::Range range = axis.readers(i);
        ASSERT_LE(range.last - range.first + 1, 4) << in << " " << i;
      }
    }
  }
}

// Position and ranges stay within 31 bits at the largest size.
TEST(UpsampleBilinearKernelAxis, LargestSize) {
  for (const bool align_corners : {true, false}) {
    const UpsampleAxis axis(kMaxUpsampleSize, kMaxUpsampleSize, align_corners);
    for (const int i : {0, 1, kMaxUpsampleSize - 2, kMaxUpsampleSize - 1}) {
      const UpsampleAxis::Range range = axis.readers(i);
      EXPECT_TRUE(range.first == i && range.last == i) << i << ": " << range.first << " to " << range.last;
    }
  }
}

// The rows that the student's decoder needs when the loss starts at row 110 of 352.
TEST(UpsampleBilinearKernelAxis, FirstInputRows) {
  EXPECT_EQ(upsample_first_input_row(108, 176, 352, true), 53);
  EXPECT_EQ(upsample_first_input_row(110, 176, 352, true), 54);
  EXPECT_EQ(upsample_first_input_row(52, 88, 176, true), 25);
  EXPECT_EQ(upsample_first_input_row(110, 176, 352, false), 54);
  EXPECT_EQ(upsample_first_input_row(7, 44, 44, true), 7);
  EXPECT_EQ(upsample_first_input_row(0, 1, 9, false), 0);
}

}  // namespace
}  // namespace depthstill
