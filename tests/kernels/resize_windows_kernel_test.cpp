#include "kernels/resize_windows.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

struct Case {
  WindowsShape shape;
  std::vector<ResizeWindow> windows;
};

// Windows of enlarged, equal and reduced maps; two of one image, one image without any; windows at all edges.
const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {{3, 9, 4, 6}, {{0, 0, 0, 14}, {2, 8, 8, 14}, {0, 3, 5, 20}, {2, 14, 0, 20}}},
      {{1, 17, 2, 17}, {{0, 0, 0, 17}, {0, 2, 1, 23}}},
      {{2, 21, 2, 5}, {{1, 4, 0, 9}, {0, 0, 7, 12}}},
      {{1, 1, 1, 3}, {{0, 1, 2, 5}}},
  };
  return all;
}

// Position and weight of an axis in double.
struct At {
  size_t low, high;
  double weight;
  At(int size, int side, int o) {
    const double at = std::clamp((o + 0.5) * size / side - 0.5, 0.0, size - 1.0);
    low = static_cast<size_t>(at);
    high = std::min(low + 1, static_cast<size_t>(size - 1));
    weight = at - static_cast<double>(low);
  }
};

// Calls f(element of y, pixel of x, weight) for all that is not 0.
template <class F>
void for_each_weight(const Case& c, const F& f) {
  const auto S = static_cast<size_t>(c.shape.size), P = static_cast<size_t>(c.shape.patch);
  for (size_t k = 0; k < c.windows.size(); ++k) {
    const ResizeWindow& window = c.windows[k];
    for (size_t i = 0; i < P * P; ++i) {
      const At row(c.shape.size, window.side, window.row + static_cast<int>(i / P));
      const At column(c.shape.size, window.side, window.column + static_cast<int>(i % P));
      const size_t map = static_cast<size_t>(window.image) * S * S;
      f(k * P * P + i, map + row.low * S + column.low, (1 - row.weight) * (1 - column.weight));
      f(k * P * P + i, map + row.low * S + column.high, (1 - row.weight) * column.weight);
      f(k * P * P + i, map + row.high * S + column.low, row.weight * (1 - column.weight));
      f(k * P * P + i, map + row.high * S + column.high, row.weight * column.weight);
    }
  }
}

TEST(ResizeWindowsKernel, MatchesTheFormulas) {
  for (const Case& c : cases()) {
    const WindowsShape& shape = c.shape;
    SCOPED_TRACE(::testing::Message() << shape.size << " to windows of " << shape.patch);
    const auto x = random_values<float>(static_cast<size_t>(shape.N * shape.pixels()), 1);
    const auto dy = random_values<float>(static_cast<size_t>(shape.K * shape.elements()), 2, -0.5f, 1.0f);
    std::vector<double> y(dy.size()), dx(x.size());
    for_each_weight(c, [&](size_t element, size_t pixel, double weight) {
      y[element] += weight * to_double(x[pixel]);
      dx[pixel] += weight * to_double(dy[element]);
    });
    auto found = nan_values<float>(y.size()), gradient = nan_values<float>(dx.size());
    cpu::resize_windows(cpu_stream(), shape, x.data(), c.windows.data(), found.data());
    cpu::resize_windows_grad(cpu_stream(), shape, dy.data(), c.windows.data(), gradient.data());
    EXPECT_LE(max_relative_error(found, y), tolerance<float>());
    EXPECT_LE(max_relative_error(gradient, dx), tolerance<float>(16));
    for_each_schedule([&] {
      const DeviceArray<float> x_device(x), dy_device(dy);
      const DeviceArray<ResizeWindow> windows(c.windows);
      DeviceArray<float> y_device(y.size()), dx_device(dx.size());
      cuda::resize_windows(cuda_stream(), shape, x_device.data(), windows.data(), y_device.data());
      cuda::resize_windows_grad(cuda_stream(), shape, dy_device.data(), windows.data(), dx_device.data());
      EXPECT_LE(max_relative_error(y_device.host(), y), tolerance<float>());
      EXPECT_LE(max_relative_error(dx_device.host(), dx), tolerance<float>(16));
    });
  }
}

// A window of a map at its own size is a copy.
TEST(ResizeWindowsKernel, AtItsOwnSizeItCopies) {
  const WindowsShape shape{1, 8, 1, 5};
  const std::vector<ResizeWindow> windows = {{0, 2, 3, 8}};
  const auto x = random_values<float>(64, 3);
  std::vector<float> y(25);
  cpu::resize_windows(cpu_stream(), shape, x.data(), windows.data(), y.data());
  for (size_t i = 0; i < 25; ++i) EXPECT_EQ(y[i], x[(i / 5 + 2) * 8 + i % 5 + 3]) << i;
}

}  // namespace
}  // namespace depthstill
