#include "kernels/preprocess_region.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr Frame kFrame{23, 31, 37};

std::vector<uint8_t> noise_image() {
  std::mt19937 generator(3);
  std::vector<uint8_t> image(static_cast<size_t>(3 * kFrame.height * kFrame.row_stride));
  for (uint8_t& value : image) value = static_cast<uint8_t>(generator() % 256);
  return image;
}

double cubic(double d) {
  constexpr double A = -0.75;
  d = std::abs(d);
  if (d <= 1) return (A + 2) * d * d * d - (A + 3) * d * d + 1;
  return d < 2 ? A * (d * d * d - 5 * d * d + 8 * d - 4) : 0.0;
}

// The window from the formula, in double: every pixel of the region with its weight.
std::vector<double> reference(const std::vector<uint8_t>& image, const RegionParams& p, int size) {
  std::vector<double> y;
  const auto weights = [&](int output) {
    std::vector<double> of_pixels(static_cast<size_t>(p.side));
    const double at = (output + 0.5) * p.side / p.scaled - 0.5;
    for (int i = -2; i < p.side + 2; ++i) {
      of_pixels[static_cast<size_t>(std::clamp(i, 0, p.side - 1))] += cubic(at - i);
    }
    return of_pixels;
  };
  for (int r = 0; r < size; ++r) {
    const auto rows = weights(p.row + r);
    for (int c = 0; c < size; ++c) {
      const auto columns = weights(p.column + c);
      for (int k = 0; k < 3; ++k) {
        double v = 0;
        for (int i = 0; i < p.side; ++i) {
          for (int j = 0; j < p.side; ++j) {
            const int64_t column = p.left + (p.mirrored ? p.side - 1 - j : j);
            const int64_t at = 3 * ((p.top + i) * kFrame.row_stride + column) + k;
            v += rows[static_cast<size_t>(i)] * columns[static_cast<size_t>(j)] * image[static_cast<size_t>(at)];
          }
        }
        if (p.colour) {
          v = std::clamp(v, 0.0, 255.0);
          v = std::pow(v, static_cast<double>(p.gamma)) * static_cast<double>(p.brightness * p.gain[k]);
          v = std::clamp(v, 0.0, 255.0);
        }
        y.push_back((v - static_cast<double>(p.mean[k])) / static_cast<double>(p.stddev[k]));
      }
    }
  }
  return y;
}

template <class T>
class PreprocessRegionKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(PreprocessRegionKernel, Types);

TYPED_TEST(PreprocessRegionKernel, MatchesTheFormula) {
  using T = TypeParam;
  struct Case {
    const char* name;
    RegionParams params;
    int size;
  };
  const std::vector<uint8_t> image = noise_image();
  for (const Case& c :
       {Case{"larger", {.top = 2, .left = 5, .side = 17, .scaled = 29}, 29},
        Case{"smaller, mirrored", {.top = 1, .left = 9, .side = 22, .mirrored = true, .scaled = 9}, 9},
        Case{"window of an enlarged region", {.left = 8, .side = 23, .scaled = 31, .row = 11, .column = 20}, 11},
        Case{"mirrored window at the native size",
             {.left = 8, .side = 23, .mirrored = true, .scaled = 23, .row = 4, .column = 9},
             14},
        Case{"one pixel, colour, other statistics",
             {.top = 22,
             .left = 30,
             .side = 1,
             .scaled = 3,
             .colour = true,
             .gamma = 0.9f,
             .brightness = 1.1f,
             .gain = {0.95f, 1.05f, 1.0f},
             .mean = {127.5f, 127.5f, 127.5f},
             .stddev = {127.5f, 127.5f, 127.5f}},
             3},
        Case{"overshoot is clipped before the colour",
             {.side = 13, .scaled = 27, .colour = true, .gamma = 1.1f, .brightness = 0.9f},
             27}}) {
    SCOPED_TRACE(c.name);
    const std::vector<double> expected = reference(image, c.params, c.size);
    const double allowed = 8 * tolerance<T>();  // a sum of 16 products, and a power of it
    auto y = nan_values<T>(expected.size());
    cpu::preprocess_region(cpu_stream(), kFrame, image.data(), c.params, c.size, y.data());
    EXPECT_LE(max_relative_error(y, expected), allowed);
    for_each_schedule([&] {
      const DeviceArray<uint8_t> device_image(image);
      DeviceArray<T> device_y(expected.size());
      cuda::preprocess_region(cuda_stream(), kFrame, device_image.data(), c.params, c.size, device_y.data());
      EXPECT_LE(max_relative_error(device_y.host(), expected), allowed);
    });
  }
}

TEST(PreprocessRegionKernelNative, CopiesPixels) {
  const std::vector<uint8_t> image = noise_image();
  const RegionParams params{.top = 3, .left = 4, .side = 16, .scaled = 16};
  auto y = nan_values<float>(3 * 16 * 16);
  cpu::preprocess_region(cpu_stream(), kFrame, image.data(), params, 16, y.data());
  for (int64_t r = 0; r < 16; ++r) {
    for (int64_t i = 0; i < 48; ++i) {
      const auto pixel = static_cast<float>(image[static_cast<size_t>(3 * ((3 + r) * kFrame.row_stride + 4) + i)]);
      ASSERT_EQ(y[static_cast<size_t>(48 * r + i)], (pixel - kImageMean[i % 3]) / kImageStd[i % 3]);
    }
  }
}

}  // namespace
}  // namespace depthstill
