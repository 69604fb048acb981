// Which normalisation finds the truth behind a teacher that is wrong in places? There is no network: x is a free map
// per image, fitted to inverse truths with an error drawn anew in each step, and scored by least squares in disparity.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "engine/autograd.h"
#include "engine/io/map_file.h"
#include "engine/io/text_file.h"
#include "engine/optim.h"
#include "losses/distill_any_depth.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

constexpr size_t kHeight = 48, kWidth = 64, kPixels = kHeight * kWidth, kImages = 12;
using Maps = std::vector<float>;  // (kImages, kHeight, kWidth)

// Every eighth of the first test frames, within the crop that is scored, as smoothed inverse depth.
Maps inverse_truths(const std::string& folder) {
  std::istringstream list(read_text(folder + "/test.txt"));
  Maps y;
  std::string line;
  for (int frame = 0; y.size() < kImages * kPixels && std::getline(list, line); ++frame) {
    if (frame % 8 != 0) continue;
    std::string image, depth;
    std::istringstream(line) >> image >> depth;
    const DepthMap map = read_map((std::filesystem::path(folder) / depth).string(), {.metres_per_unit = 1e-3});
    const auto at = [&](size_t row, size_t column) {
      const size_t r = 45 + (2 * row + 1) * 426 / (2 * kHeight), c = 41 + (2 * column + 1) * 560 / (2 * kWidth);
      return 1 / map.values[r * static_cast<size_t>(map.width) + c];
    };
    for (size_t row = 0; row < kHeight; ++row) {
      for (size_t column = 0; column < kWidth; ++column) {
        float sum = 0;
        for (const size_t r : {row - (row > 0), row, std::min(row + 1, kHeight - 1)}) {
          for (const size_t c : {column - (column > 0), column, std::min(column + 1, kWidth - 1)}) sum += at(r, c) / 9;
        }
        y.push_back(sum);
      }
    }
  }
  return y;
}

using Random = std::mt19937_64;
double uniform(Random& random, double low, double high) {
  return low + (high - low) * static_cast<double>(random() >> 11) * 0x1p-53;
}

// A box of each map, with sides of these shares of the map's, times a factor.
Maps with_box(Maps y, Random& random, double least, double most, const std::function<double(Random&)>& factor) {
  for (size_t n = 0; n < kImages; ++n) {
    const auto height = static_cast<size_t>(kHeight * uniform(random, least, most));
    const auto width = static_cast<size_t>(kWidth * uniform(random, least, most));
    const size_t top = random() % (kHeight - height + 1), left = random() % (kWidth - width + 1);
    const auto by = static_cast<float>(factor(random));
    for (size_t row = top; row < top + height; ++row) {
      for (size_t column = left; column < left + width; ++column) y[n * kPixels + row * kWidth + column] *= by;
    }
  }
  return y;
}

// 3 to 7 times as near.
Maps small_box(const Maps& y, Random& random) {
  return with_box(y, random, 0.12, 0.25, [](Random& r) { return uniform(r, 3, 7); });
}
Maps large_box(const Maps& y, Random& random) {
  return with_box(y, random, 0.3, 0.7, [](Random& r) {
    const double sign = r() % 2 == 0 ? 1 : -1;
    return std::exp(sign * uniform(r, 0.5, 1.5));
  });
}

// Mean over the images of AbsRel in depth, after the line through each image that fits it in disparity.
double abs_rel(const Maps& x, const Maps& y) {
  double mean = 0;
  for (size_t n = 0; n < kImages; ++n) {
    double sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (size_t i = n * kPixels; i < (n + 1) * kPixels; ++i) {
      const auto a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
      sx += a, sy += b, sxx += a * a, sxy += a * b;
    }
    const double count = kPixels, scale = (count * sxy - sx * sy) / (count * sxx - sx * sx);
    const double shift = (sy - scale * sx) / count;
    for (size_t i = n * kPixels; i < (n + 1) * kPixels; ++i) {
      const double disparity = std::max(scale * static_cast<double>(x[i]) + shift, 0.1);
      mean += std::fabs(static_cast<double>(y[i]) / disparity - 1) / (count * kImages);
    }
  }
  return mean;
}

double fitted(const Maps& y, ContextNorm norm, Maps (*error)(const Maps&, Random&)) {
  constexpr int kSteps = 250;
  const Shape shape{kImages, kHeight, kWidth};
  Random random(0), start(9);
  double mean = 0;
  for (const float value : y) mean += static_cast<double>(value) / static_cast<double>(y.size());
  Maps first(y.size());
  for (float& value : first) value = static_cast<float>(mean + uniform(start, -0.035, 0.035));
  Tensor x = tensor<float>(shape, first).set_requires_grad();
  AdamW adam({x}, {.params = {.beta1 = 0.9f, .beta2 = 0.999f, .weight_decay = 0}, .clip_norm = 0});
  DistillOptions options;
  options.norm = norm;
  options.lambda_grad = 0;
  for (int step = 0; step < kSteps; ++step) {
    adam.set_lr(0.02 * (1 - static_cast<double>(step) / kSteps));
    adam.clear_grads();
    backward(cross_context_loss(x, tensor<float>(shape, error(y, random)), options).total);
    adam.step();
  }
  return abs_rel(to_vector<float>(x), y);
}

// The paper's argument: where a teacher is wrong in a part, hybrid keeps the rest clean. In double precision it comes
// to 0.57 and 0.80 of global's error.
TEST(NoisyTeacher, HybridFindsTheTruthBesideAWrongPart) {
  const auto folder = testing_files::find_data_set("nyuv2");
  if (!folder) GTEST_SKIP() << "skipped: no nyuv2";
  const Maps y = inverse_truths(*folder);
  ASSERT_EQ(y.size(), kImages * kPixels);
  const double small = fitted(y, ContextNorm::kGlobal, small_box), large = fitted(y, ContextNorm::kGlobal, large_box);
  EXPECT_LT(small, 0.08) << "which global finds roughly";
  EXPECT_LT(fitted(y, ContextNorm::kHybrid, small_box), 0.7 * small);
  EXPECT_LT(fitted(y, ContextNorm::kHybrid, large_box), 0.9 * large);
}

}  // namespace
}  // namespace depthstill
