#include "kernels/add.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class AddKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(AddKernel, Types);

// Sizes below, at and beyond one pack, one block and one grid of packs.
constexpr size_t kSizes[] = {1, 3, 4, 8, 9, 255, 1024, 2048, 4099};

TYPED_TEST(AddKernel, SumsElements) {
  for (const size_t n : kSizes) {
    SCOPED_TRACE(n);
    const auto a = random_values<TypeParam>(n, 1), b = random_values<TypeParam>(n, 2, 0.5f, 3.0f);
    std::vector<double> expected(n);
    for (size_t i = 0; i < n; ++i) expected[i] = to_double(a[i]) + to_double(b[i]);

    auto y = nan_values<TypeParam>(n);
    cpu::add(cpu_stream(), static_cast<int64_t>(n), a.data(), b.data(), y.data());
    EXPECT_LE(max_relative_error(y, expected), tolerance<TypeParam>());

    for_each_schedule([&] {
      const DeviceArray<TypeParam> da(a), db(b);
      DeviceArray<TypeParam> dy(n);
      cuda::add(cuda_stream(), static_cast<int64_t>(n), da.data(), db.data(), dy.data());
      EXPECT_LE(max_relative_error(dy.host(), expected), tolerance<TypeParam>());
    });
  }
}

TYPED_TEST(AddKernel, AcceptsUnalignedPointersAndItsInputAsOutput) {
  const size_t n = 1031;
  const auto a = random_values<TypeParam>(n + 1, 3), b = random_values<TypeParam>(n + 1, 4);
  std::vector<double> expected;
  for (size_t i = 1; i <= n; ++i) expected.push_back(to_double(a[i]) + to_double(b[i]));

  auto y = a;
  cpu::add(cpu_stream(), static_cast<int64_t>(n), y.data() + 1, b.data() + 1, y.data() + 1);
  EXPECT_EQ(to_double(y[0]), to_double(a[0]));
  EXPECT_LE(max_relative_error(std::vector<TypeParam>(y.begin() + 1, y.end()), expected), tolerance<TypeParam>());

  for_each_schedule([&] {
    DeviceArray<TypeParam> dy(a);
    const DeviceArray<TypeParam> db(b);
    cuda::add(cuda_stream(), static_cast<int64_t>(n), dy.data() + 1, db.data() + 1, dy.data() + 1);
    const auto result = dy.host();
    EXPECT_EQ(to_double(result[0]), to_double(a[0]));
    EXPECT_LE(max_relative_error(std::vector<TypeParam>(result.begin() + 1, result.end()), expected),
              tolerance<TypeParam>());
  });
}

}  // namespace
}  // namespace depthstill
