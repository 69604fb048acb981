#include "kernels/space_to_depth.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class SpaceToDepthKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(SpaceToDepthKernel, Types);

// N, H, W, C, block: runs below, at and beyond a pack; packs that cross pixels (C = 1, 3, 4); the block of a patch
// embedding; the whole map as one block; more elements than one round of the emulator's grid.
const SpaceToDepthShape kShapes[] = {
    {1, 1, 1, 1, 1}, {2, 4, 6, 1, 2},    {1, 6, 9, 5, 3}, {2, 8, 4, 4, 4},
    {1, 6, 4, 8, 2}, {1, 28, 42, 3, 14}, {3, 5, 5, 2, 5}, {2, 20, 24, 17, 4},
};

TYPED_TEST(SpaceToDepthKernel, MovesEveryElementAndBack) {
  using T = TypeParam;
  for (const SpaceToDepthShape& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.N << "x" << s.H << "x" << s.W << "x" << s.C << " block " << s.block);
    const auto n = static_cast<size_t>(s.numel());
    const auto wide = random_values<T>(n, 1);
    const auto bias = random_values<float>(static_cast<size_t>(s.C), 2, 0.5f, 2.0f);
    std::vector<double> deep_expected(n), wide_expected(n), biased_expected(n);
    for (int64_t i = 0; i < s.numel(); ++i) {  // i in the wide map, j in the deep one
      const int64_t c = i % s.C, x = i / s.C % s.W, y = i / (s.C * s.W) % s.H, image = i / (s.C * s.W * s.H);
      const int64_t pixel = (image * s.P() + y / s.block) * s.Q() + x / s.block;
      const int64_t j = pixel * s.block * s.block * s.C + (y % s.block * s.block + x % s.block) * s.C + c;
      deep_expected[static_cast<size_t>(j)] = to_double(wide[static_cast<size_t>(i)]);
      wide_expected[static_cast<size_t>(i)] = to_double(wide[static_cast<size_t>(i)]);
      biased_expected[static_cast<size_t>(i)] =
          to_double(wide[static_cast<size_t>(i)]) + to_double(bias[static_cast<size_t>(c)]);
    }

    auto deep = nan_values<T>(n), back = nan_values<T>(n), biased = nan_values<T>(n);
    cpu::space_to_depth(cpu_stream(), s, wide.data(), deep.data());
    cpu::depth_to_space(cpu_stream(), s, deep.data(), nullptr, back.data());
    cpu::depth_to_space(cpu_stream(), s, deep.data(), bias.data(), biased.data());
    EXPECT_EQ(max_relative_error(deep, deep_expected), 0.0);
    EXPECT_EQ(max_relative_error(back, wide_expected), 0.0);
    EXPECT_LE(max_relative_error(biased, biased_expected), tolerance<T>());

    for_each_schedule([&] {
      const DeviceArray<T> device_wide(wide);
      const DeviceArray<float> device_bias(bias);
      DeviceArray<T> device_deep(n), device_back(n), device_biased(n);
      cuda::space_to_depth(cuda_stream(), s, device_wide.data(), device_deep.data());
      cuda::depth_to_space(cuda_stream(), s, device_deep.data(), nullptr, device_back.data());
      cuda::depth_to_space(cuda_stream(), s, device_deep.data(), device_bias.data(), device_biased.data());
      EXPECT_EQ(max_relative_error(device_deep.host(), deep_expected), 0.0);
      EXPECT_EQ(max_relative_error(device_back.host(), wide_expected), 0.0);
      EXPECT_LE(max_relative_error(device_biased.host(), biased_expected), tolerance<T>());
    });
  }
}

}  // namespace
}  // namespace depthstill
