#include "kernels/concat.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class ConcatKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(ConcatKernel, Types);

struct Row {
  int64_t rows, a, b;
};
// Both, one and neither width a multiple of the packs; rows beyond a block; channels beyond a warp.
constexpr Row kShapes[] = {{1, 1, 1}, {3, 8, 16}, {35, 8, 5}, {257, 3, 1}, {5, 264, 40}, {300, 4, 12}, {2, 31, 33}};

TYPED_TEST(ConcatKernel, JoinsAndSplits) {
  using T = TypeParam;
  for (const Row& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.rows << " rows of " << s.a << " + " << s.b);
    const auto na = static_cast<size_t>(s.rows * s.a), nb = static_cast<size_t>(s.rows * s.b);
    const auto a = random_values<T>(na, 1), b = random_values<T>(nb, 2);
    std::vector<double> expected;
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t c = 0; c < s.a; ++c) expected.push_back(to_double(a[static_cast<size_t>(r * s.a + c)]));
      for (int64_t c = 0; c < s.b; ++c) expected.push_back(to_double(b[static_cast<size_t>(r * s.b + c)]));
    }

    auto y = nan_values<T>(na + nb), da = nan_values<T>(na), db = nan_values<T>(nb);
    cpu::concat(cpu_stream(), s.rows, s.a, s.b, a.data(), b.data(), y.data());
    EXPECT_EQ(max_relative_error(y, expected), 0.0);
    cpu::concat_grad(cpu_stream(), s.rows, s.a, s.b, y.data(), da.data(), db.data());
    EXPECT_EQ(max_relative_error(da, a), 0.0);
    EXPECT_EQ(max_relative_error(db, b), 0.0);
    auto only_b = nan_values<T>(nb);
    cpu::concat_grad<T>(cpu_stream(), s.rows, s.a, s.b, y.data(), nullptr, only_b.data());
    EXPECT_EQ(max_relative_error(only_b, b), 0.0);

    for_each_schedule([&] {
      const DeviceArray<T> a_device(a), b_device(b);
      DeviceArray<T> y_device(na + nb), da_device(na), db_device(nb), only_a(na);
      cuda::concat(cuda_stream(), s.rows, s.a, s.b, a_device.data(), b_device.data(), y_device.data());
      EXPECT_EQ(max_relative_error(y_device.host(), expected), 0.0);
      const T* dy = y_device.data();
      cuda::concat_grad(cuda_stream(), s.rows, s.a, s.b, dy, da_device.data(), db_device.data());
      EXPECT_EQ(max_relative_error(da_device.host(), a), 0.0);
      EXPECT_EQ(max_relative_error(db_device.host(), b), 0.0);
      cuda::concat_grad<T>(cuda_stream(), s.rows, s.a, s.b, dy, only_a.data(), nullptr);
      EXPECT_EQ(max_relative_error(only_a.host(), a), 0.0);
    });
  }
}

}  // namespace
}  // namespace depthstill
