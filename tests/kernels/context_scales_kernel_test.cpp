#include "kernels/context/context_scales.h"
#include "kernels/context/context_statistics.h"
#include "kernels/core/parallel.h"
#include "tests/kernels/context_reference.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr auto kRange = ContextKind::kRange;
constexpr int kFigures = 7;

struct Pair {
  MapShape shape;
  std::vector<float> x, y;
};

// Maps with holes; the last image of three or more teaches nothing.
Pair maps(const MapShape& shape, uint32_t seed) {
  const auto n = static_cast<size_t>(shape.N * shape.pixels());
  Pair pair{shape, random_values<float>(n, seed, 1.0f, 5.0f), random_values<float>(n, seed + 1, 0.0f, 2.0f)};
  for (size_t i = 0; i < n; i += 7) pair.y[i] = nan_values<float>(1)[0];
  if (shape.N >= 3) std::fill(pair.y.end() - shape.pixels(), pair.y.end(), nan_values<float>(1)[0]);
  for (size_t i = 0; i < n; ++i) {
    if (std::isnan(pair.y[i])) pair.x[i] = nan_values<float>(1)[0];
  }
  for (size_t i = 3; i + 1 < n; i += 5) pair.x[i] = std::isnan(pair.y[i]) ? pair.x[i] : 3.0f;  // several at the median
  return pair;
}

struct Result {
  std::vector<float> figures, dx;
};

ContextScales places(float* at) { return {at, at + 1, at + 2, at + 3, at + 4, at + 5, at + 6}; }

struct Statistics {
  std::vector<uint8_t> leaves;
  std::vector<ContextStats> stats;
};

Statistics statistics_of(const Pair& p) {
  Statistics s{std::vector<uint8_t>(p.x.size()),
               std::vector<ContextStats>(static_cast<size_t>(2 * p.shape.N * context_count(kRange)))};
  cpu::context_statistics(cpu_stream(), p.shape, {kRange}, p.x.data(), p.y.data(), s.leaves.data(), s.stats.data());
  return s;
}

Result on_cpu(const Pair& p, float dloss) {
  const Statistics s = statistics_of(p);
  Result result{nan_values<float>(kFigures), nan_values<float>(p.x.size())};
  cpu::context_scales(cpu_stream(), p.shape.N, kRange, s.stats.data(), places(result.figures.data()));
  cpu::context_anchor_grad(cpu_stream(), p.shape, kRange, p.x.data(), s.leaves.data(), s.stats.data(),
                           result.figures.data() + 6, &dloss, result.dx.data());
  return result;
}

Result on_device(const Pair& p, float dloss) {
  const Statistics s = statistics_of(p);
  const DeviceArray<float> x(p.x), seed(std::vector<float>{dloss});
  const DeviceArray<uint8_t> leaves(s.leaves);
  const DeviceArray<ContextStats> stats(s.stats);
  DeviceArray<float> figures(kFigures), dx(p.x.size());
  cuda::context_scales(cuda_stream(), p.shape.N, kRange, stats.data(), places(figures.data()));
  cuda::context_anchor_grad(cuda_stream(), p.shape, kRange, x.data(), leaves.data(), stats.data(), figures.data() + 6,
                            seed.data(), dx.data());
  return {figures.host(), dx.host()};
}

// Root statistics of an image from their definition, in double.
ReferenceStats root_of(const std::vector<float>& map, const Pair& p, int64_t n) {
  Doubles values(static_cast<size_t>(p.shape.pixels()));
  Mask in(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t at = static_cast<size_t>(n * p.shape.pixels()) + i;
    in[i] = std::isfinite(p.y[at]);
    values[i] = static_cast<double>(map[at]);
  }
  return reference_stats(values, in, false);
}

double anchor_of(const Pair& p) {
  double sum = 0;
  int images = 0;
  for (int64_t n = 0; n < p.shape.N; ++n) {
    if (p.shape.N >= 3 && n == p.shape.N - 1) continue;
    sum += std::abs(std::log(root_of(p.x, p, n).s / root_of(p.y, p, n).s));
    ++images;
  }
  return sum / images;
}

TEST(ContextScalesKernel, AreMeansOfTheRootsStatistics) {
  for (const MapShape& shape : {MapShape{1, 9, 13}, MapShape{4, 17, 16}, MapShape{40, 5, 7}}) {
    SCOPED_TRACE(::testing::Message() << shape.N);
    const Pair p = maps(shape, 11);
    double expected[4] = {};
    const int64_t images = shape.N >= 3 ? shape.N - 1 : shape.N;
    for (int64_t n = 0; n < images; ++n) {
      const ReferenceStats a = root_of(p.x, p, n), b = root_of(p.y, p, n);
      const double figures[4] = {a.t, a.s, b.t, b.s};
      for (int k = 0; k < 4; ++k) expected[k] += figures[k] / static_cast<double>(images);
    }
    const auto check_figures = [&](const std::vector<float>& found) {
      for (size_t k = 0; k < 4; ++k) EXPECT_NEAR(found[k], expected[k], 1e-5 * expected[k]) << k;
      EXPECT_EQ(found[4], 0.0f);
      EXPECT_NEAR(found[5], anchor_of(p), 1e-5);
    };
    check_figures(on_cpu(p, 1.0f).figures);
    for_each_schedule([&] { check_figures(on_device(p, 1.0f).figures); });
  }
}

// Against differences of the anchor's definition, along random directions that leave the order of values as it is.
TEST(ContextScalesKernel, GradientOfTheAnchor) {
  Pair p = maps({2, 8, 11}, 5);
  for (size_t i = 3; i < p.x.size(); i += 5) {  // distinct values: the median has a derivative
    if (!std::isnan(p.x[i])) p.x[i] = 3.0f + 0.001f * static_cast<float>(i);
  }
  const float dloss = 1.7f;
  const Result found = on_cpu(p, dloss);
  for (uint32_t direction = 0; direction < 4; ++direction) {
    const auto v = random_values<float>(p.x.size(), 100 + direction);
    const auto moved = [&](double h) {
      Pair other = p;
      for (size_t i = 0; i < p.x.size(); ++i) other.x[i] = static_cast<float>(p.x[i] + h * v[i]);
      return anchor_of(other);
    };
    const double h = 1e-5, expected = dloss * (moved(h) - moved(-h)) / (2 * h);
    double product = 0;
    for (size_t i = 0; i < p.x.size(); ++i) {
      if (std::isfinite(p.y[i])) {
        product += static_cast<double>(found.dx[i]) * static_cast<double>(v[i]);
      } else {
        EXPECT_EQ(found.dx[i], 0.0f);
      }
    }
    EXPECT_NEAR(product, expected, 2e-3 * std::abs(expected) + 2e-3);
  }
}

// A shift of the map changes nothing, a factor all of it; where values are equal to the median they share its part.
TEST(ContextScalesKernel, GradientsOfEveryImageSumToZeroAndDevicesAgree) {
  const Pair p = maps({4, 17, 16}, 21);
  const Result cpu = on_cpu(p, 0.8f);
  for (int64_t n = 0; n < 4; ++n) {
    double sum = 0, magnitude = 0, scale = 0;
    for (int64_t i = n * p.shape.pixels(); i < (n + 1) * p.shape.pixels(); ++i) {
      const double dx = static_cast<double>(cpu.dx[static_cast<size_t>(i)]);
      if (std::isnan(p.x[static_cast<size_t>(i)])) {
        EXPECT_EQ(dx, 0.0);
        continue;
      }
      sum += dx;
      magnitude += std::abs(dx);
      scale += dx * static_cast<double>(p.x[static_cast<size_t>(i)]);
    }
    EXPECT_LE(std::abs(sum), 1e-5 * magnitude);
    EXPECT_NEAR(std::abs(scale), n < 3 ? 0.8 / 3 : 0.0, 1e-5) << "d ln s / d ln x = 1";
  }
  for_each_schedule([&] {
    const Result device = on_device(p, 0.8f);
    EXPECT_LE(max_relative_error(device.dx, cpu.dx), tolerance<float>());
    EXPECT_LE(max_relative_error(device.figures, cpu.figures), tolerance<float>());
  });
}

TEST(ContextScalesKernel, AConstantStudentIsCountedAndGetsNoGradient) {
  Pair p = maps({1, 6, 6}, 3);
  for (float& v : p.x) v = std::isnan(v) ? v : 2.0f;
  const Result cpu = on_cpu(p, 1.0f);
  EXPECT_EQ(cpu.figures[4], 1.0f);
  for (const float v : cpu.dx) EXPECT_EQ(v, 0.0f);
  for (float& v : p.y) v = nan_values<float>(1)[0];
  const Result nothing = on_cpu(p, 1.0f);
  EXPECT_EQ(nothing.figures, std::vector<float>(kFigures, 0.0f));
  for_each_schedule([&] { EXPECT_EQ(on_device(p, 1.0f).figures, nothing.figures); });
}

}  // namespace
}  // namespace depthstill
