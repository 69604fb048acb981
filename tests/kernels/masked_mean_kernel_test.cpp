#include "kernels/masked_mean.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

// NaN where the mask is 0.
struct Masked {
  std::vector<float> x;
  std::vector<uint8_t> mask;
  double sum = 0, count = 0;

  Masked(size_t n, int out_of_four) : x(random_values<float>(n, 1, -2.0f, 5.0f)), mask(n) {
    for (size_t i = 0; i < n; ++i) {
      mask[i] = (i * 7 + i / 5) % 4 < static_cast<size_t>(out_of_four);
      if (mask[i]) {
        sum += to_double(x[i]);
        count += 1;
      } else {
        x[i] = NAN;
      }
    }
  }
};

TEST(MaskedMeanKernel, MeansSumsAndTheirGradients) {
  for (const size_t n : {1, 5, 300, 8193, 20011}) {
    for (const int share : {0, 1, 3, 4}) {
      for (const bool mean : {false, true}) {
        SCOPED_TRACE(::testing::Message() << n << " elements, " << share << " of four, " << (mean ? "mean" : "sum"));
        const Masked in(n, share);
        const double factor = in.count == 0 ? 0 : mean ? 1 / in.count : 1, dy = -1.75;
        const std::vector<double> expected = {in.sum * factor, factor};
        std::vector<double> dx_expected;
        for (const uint8_t m : in.mask) dx_expected.push_back(m ? dy * factor : 0.0);
        const auto size = static_cast<int64_t>(n);
        const uint8_t* mask = share == 4 ? nullptr : in.mask.data();

        auto result = nan_values<float>(2), dx = nan_values<float>(n);
        const std::vector<float> dloss = {static_cast<float>(dy)};
        cpu::masked_mean(cpu_stream(), mean, size, in.x.data(), mask, result.data());
        cpu::masked_mean_grad(cpu_stream(), size, mask, result.data(), dloss.data(), dx.data());
        EXPECT_LE(max_relative_error(result, expected), tolerance<float>());
        EXPECT_LE(max_relative_error(dx, dx_expected), tolerance<float>());
        for_each_schedule([&] {
          const DeviceArray<float> x(in.x), dloss_device(dloss);
          const DeviceArray<uint8_t> mask_device(in.mask);
          DeviceArray<float> result_device(2), dx_device(n);
          const uint8_t* on_device = share == 4 ? nullptr : mask_device.data();
          cuda::masked_mean(cuda_stream(), mean, size, x.data(), on_device, result_device.data());
          cuda::masked_mean_grad(cuda_stream(), size, on_device, result_device.data(), dloss_device.data(),
                                 dx_device.data());
          EXPECT_LE(max_relative_error(result_device.host(), expected), tolerance<float>());
          EXPECT_LE(max_relative_error(dx_device.host(), dx_expected), tolerance<float>());
        });
      }
    }
  }
}

TEST(MaskedMeanKernel, DepthMasks) {
  const DepthMapShape shape{2, 5, 67, 2};
  auto depth = random_values<float>(2 * 5 * 67, 1, 0.5f, 80.0f);
  for (size_t i = 0; i < depth.size(); i += 3) depth[i] = std::vector<float>{0.0f, -1.0f, NAN, INFINITY}[i / 3 % 4];
  for (const bool only_valid : {false, true}) {
    std::vector<uint8_t> expected;
    for (size_t i = 0; i < depth.size(); ++i) {
      const bool valid = depth[i] > 0.0f && std::isfinite(depth[i]);
      expected.push_back(i / 67 % 5 >= 2 && (valid || !only_valid));
    }
    std::vector<uint8_t> mask(depth.size(), 7);
    cpu::depth_mask(cpu_stream(), shape, only_valid, depth.data(), mask.data());
    EXPECT_EQ(mask, expected);
    for_each_schedule([&] {
      const DeviceArray<float> on_device(depth);
      DeviceArray<uint8_t> mask_device(depth.size());
      cuda::depth_mask(cuda_stream(), shape, only_valid, on_device.data(), mask_device.data());
      EXPECT_EQ(mask_device.host(), expected);
    });
  }
}

}  // namespace
}  // namespace depthstill
