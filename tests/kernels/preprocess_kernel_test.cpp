#include "kernels/preprocess.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

struct Case {
  const char* name;
  Frame frame;
  int64_t crop_height, crop_width;
  PreprocessParams params;
};
const Case kCases[] = {
    {"copy", {5, 7, 7}, 5, 7, {}},
    {"one pixel", {1, 1, 1}, 1, 1, {0, 0, true, 2.0f, true, 0.9f, 1.1f, {1.05f, 0.95f, 0.9f}}},
    {"crop of a window", {9, 13, 20}, 4, 6, {5, 3, false, 0.0f, false, 1.0f, 1.0f, {1, 1, 1}}},
    {"flip", {6, 11, 11}, 6, 8, {2, 0, true, 0.0f, false, 1.0f, 1.0f, {1, 1, 1}}},
    {"colour", {16, 18, 18}, 16, 18, {0, 0, false, 0.0f, true, 1.1f, 1.08f, {0.92f, 1.1f, 1.03f}}},
    {"rotate", {33, 47, 50}, 33, 47, {0, 0, false, 2.5f, false, 1.0f, 1.0f, {1, 1, 1}}},
    {"all", {40, 60, 64}, 31, 37, {17, 6, true, -1.7f, true, 0.93f, 0.9f, {1.1f, 0.9f, 1.0f}}},
    {"far", {21, 20, 20}, 21, 20, {0, 0, false, 77.0f, false, 1.0f, 1.0f, {1, 1, 1}}},
};

// Sampling positions and arithmetic in double, written from the formulas.
struct Reference {
  const Case& c;

  struct Point {
    double x, y;
  };
  Point source(int64_t row, int64_t col) const {
    const auto w = static_cast<double>(c.frame.width), h = static_cast<double>(c.frame.height);
    double x = c.params.crop_x + static_cast<double>(col);
    const double y = c.params.crop_y + static_cast<double>(row);
    if (c.params.flip) x = w - 1 - x;
    const double t = to_double(c.params.angle_degrees) * M_PI / 180, dx = x - (w - 1) / 2, dy = y - (h - 1) / 2;
    return {std::cos(t) * dx + std::sin(t) * dy + (w - 1) / 2, -std::sin(t) * dx + std::cos(t) * dy + (h - 1) / 2};
  }
  template <class T>
  double at(const std::vector<T>& data, int64_t x, int64_t y, int64_t k, int64_t channels) const {
    if (x < 0 || x >= c.frame.width || y < 0 || y >= c.frame.height) return 0;
    return static_cast<double>(data[static_cast<size_t>((y * c.frame.row_stride + x) * channels + k)]);
  }
  double image(const std::vector<uint8_t>& data, int64_t row, int64_t col, int64_t k) const {
    const Point s = source(row, col);
    const double left = std::floor(s.x + 1e-9), top = std::floor(s.y + 1e-9), wx = s.x - left, wy = s.y - top;
    const auto x = static_cast<int64_t>(left), y = static_cast<int64_t>(top);
    double v = (1 - wy) * ((1 - wx) * at(data, x, y, k, 3) + wx * at(data, x + 1, y, k, 3)) +
               wy * ((1 - wx) * at(data, x, y + 1, k, 3) + wx * at(data, x + 1, y + 1, k, 3));
    if (c.params.colour) {
      v = std::pow(std::max(v, 0.0), to_double(c.params.gamma)) * to_double(c.params.brightness) *
          to_double(c.params.gain[k]);
      v = std::min(std::max(v, 0.0), 255.0);
    }
    constexpr double kMean[] = {123.675, 116.28, 103.53}, kStd[] = {58.395, 57.12, 57.375};
    return (v - kMean[k]) / kStd[k];
  }
  // The nearest depth; false where the position is so close to halfway between pixels that float may choose the other.
  bool depth(const std::vector<float>& data, int64_t row, int64_t col, double* value) const {
    const Point s = source(row, col);
    *value = at(data, static_cast<int64_t>(std::floor(s.x + 0.5)), static_cast<int64_t>(std::floor(s.y + 0.5)), 0, 1);
    const auto clear = [](double v) { return std::abs(v + 0.5 - std::round(v + 0.5)) > 1e-4; };
    return clear(s.x) && clear(s.y);
  }
};

template <class T>
class PreprocessKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(PreprocessKernel, Types);

TYPED_TEST(PreprocessKernel, ImageMatchesTheFormulas) {
  using T = TypeParam;
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    // The last row ends at the frame's width, so that reading beyond it is out of bounds.
    const auto stored = static_cast<size_t>((c.frame.height - 1) * c.frame.row_stride + c.frame.width) * 3;
    std::vector<uint8_t> image;
    for (const float v : random_values<float>(stored, 1, 0.0f, 255.9f)) image.push_back(static_cast<uint8_t>(v));
    const Reference reference{c};
    std::vector<double> expected;
    for (int64_t i = 0; i < c.crop_height * c.crop_width * 3; ++i) {
      expected.push_back(reference.image(image, i / 3 / c.crop_width, i / 3 % c.crop_width, i % 3));
    }
    // A position of up to 64 pixels in float is off by 4e-6, times 255 levels per pixel, divided by the deviation.
    const double limit = tolerance<T>() + (c.params.angle_degrees != 0.0f ? 1e-4 : 1e-5);

    auto y = nan_values<T>(expected.size());
    cpu::preprocess_image(cpu_stream(), c.frame, image.data(), c.params, c.crop_height, c.crop_width, y.data());
    EXPECT_LE(max_relative_error(y, expected), limit);
    for_each_schedule([&] {
      const DeviceArray<uint8_t> image_device(image);
      DeviceArray<T> y_device(expected.size());
      cuda::preprocess_image(cuda_stream(), c.frame, image_device.data(), c.params, c.crop_height, c.crop_width,
                             y_device.data());
      EXPECT_LE(max_relative_error(y_device.host(), expected), limit);
    });
  }
}

TEST(PreprocessKernelDepth, TakesTheNearestPixel) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const auto stored = static_cast<size_t>((c.frame.height - 1) * c.frame.row_stride + c.frame.width);
    const auto depth = random_values<float>(stored, 1, 0.5f, 80.0f);
    const auto n = static_cast<size_t>(c.crop_height * c.crop_width);
    auto y = nan_values<float>(n);
    cpu::preprocess_depth(cpu_stream(), c.frame, depth.data(), c.params, c.crop_height, c.crop_width, y.data());
    const Reference reference{c};
    size_t compared = 0;
    for (size_t i = 0; i < n; ++i) {
      double expected = 0;
      const auto at = static_cast<int64_t>(i);
      if (!reference.depth(depth, at / c.crop_width, at % c.crop_width, &expected)) continue;
      ++compared;
      EXPECT_EQ(to_double(y[i]), expected) << i;
    }
    EXPECT_GE(compared * 20, n * 19);
    for_each_schedule([&] {
      const DeviceArray<float> depth_device(depth);
      DeviceArray<float> y_device(n);
      cuda::preprocess_depth(cuda_stream(), c.frame, depth_device.data(), c.params, c.crop_height, c.crop_width,
                             y_device.data());
      const auto result = y_device.host();
      size_t different = 0;  // the twins may choose differently at halfway positions
      for (size_t i = 0; i < n; ++i) different += result[i] != y[i];
      EXPECT_LE(different * 200, n);
    });
  }
}

// A quarter turn clockwise carries the left column to the top row.
TEST(PreprocessKernelDepth, PositiveAnglesAreClockwise) {
  const std::vector<float> depth = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  PreprocessParams params;
  params.angle_degrees = 90.0f;
  auto y = nan_values<float>(9);
  cpu::preprocess_depth(cpu_stream(), {3, 3, 3}, depth.data(), params, 3, 3, y.data());
  EXPECT_EQ(y, (std::vector<float>{7, 4, 1, 8, 5, 2, 9, 6, 3}));
}

}  // namespace
}  // namespace depthstill
