#include "kernels/context/context_statistics.h"
#include "kernels/context/gradient_matching.h"
#include "kernels/core/parallel.h"
#include "tests/kernels/context_reference.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr auto kRange = ContextKind::kRange;

// L_grad of a batch from its definition.
double reference_loss(const Doubles& x, const Doubles& y, const MapShape& shape, const GradientMatchingOptions& o) {
  Doubles R(x.size());
  Mask counts(x.size());
  for (int64_t n = 0; n < shape.N; ++n) {
    const Doubles xi = image_of(x, n, shape.pixels()), yi = image_of(y, n, shape.pixels());
    Mask in(xi.size());
    for (size_t i = 0; i < yi.size(); ++i) in[i] = std::isfinite(yi[i]);
    const ReferenceStats a = reference_stats(xi, in, o.reference), b = reference_stats(yi, in, o.reference);
    for (size_t i = 0; i < yi.size(); ++i) {
      const size_t at = static_cast<size_t>(n * shape.pixels()) + i;
      counts[at] = in[i];
      R[at] = in[i] ? (xi[i] - a.t) / a.s - (yi[i] - b.t) / b.s : 0.0;
    }
  }
  double total = 0;
  for (int k = 0; k < o.scales; ++k) {
    const int64_t step = int64_t{1} << k;
    double sum = 0, counted = 0;
    for (int64_t n = 0; n < shape.N; ++n) {
      const auto at = [&](int64_t r, int64_t c) { return static_cast<size_t>((n * shape.H + r) * shape.W + c); };
      for (int64_t r = 0; r < shape.H; r += step) {
        for (int64_t c = 0; c < shape.W; c += step) {
          if (!counts[at(r, c)]) continue;
          counted += 1;
          if (r + step < shape.H && counts[at(r + step, c)]) sum += std::abs(R[at(r + step, c)] - R[at(r, c)]);
          if (c + step < shape.W && counts[at(r, c + step)]) sum += std::abs(R[at(r, c + step)] - R[at(r, c)]);
        }
      }
    }
    total += counted > 0 ? sum / counted : 0.0;
  }
  return total;
}

struct LossResult {
  float loss;
  std::vector<float> dx;
};

LossResult on_cpu(const MapShape& shape, const GradientMatchingOptions& options, const std::vector<float>& x,
                  const std::vector<float>& y, float dloss = 1.0f) {
  const ContextRule rule{kRange, options.reference};
  std::vector<uint8_t> leaves(x.size(), 77);
  std::vector<ContextStats> stats(static_cast<size_t>(2 * shape.N * context_count(kRange)));
  cpu::context_statistics(cpu_stream(), shape, rule, x.data(), y.data(), leaves.data(), stats.data());
  auto loss = nan_values<float>(1 + kGradientScales), A = nan_values<float>(static_cast<size_t>(shape.N));
  auto dx = nan_values<float>(x.size());
  const GradientMatchingResult result{loss.data(), A.data()};
  cpu::gradient_matching(cpu_stream(), shape, kRange, options, {x.data(), y.data(), leaves.data(), stats.data()},
                         result);
  cpu::gradient_matching_grad(cpu_stream(), shape, kRange, options, {x.data(), y.data(), leaves.data(), stats.data()},
                              result, &dloss, dx.data());
  return {loss[0], dx};
}

LossResult on_cuda(const MapShape& shape, const GradientMatchingOptions& options, const MapPair& maps, float dloss) {
  const ContextRule rule{kRange, options.reference};
  const DeviceArray<float> x(maps.x), y(maps.y), device_dloss(std::vector<float>{dloss});
  DeviceArray<uint8_t> leaves(maps.x.size());
  DeviceArray<ContextStats> stats(static_cast<size_t>(2 * shape.N * context_count(kRange)));
  cuda::context_statistics(cuda_stream(), shape, rule, x.data(), y.data(), leaves.data(), stats.data());
  DeviceArray<float> loss(1 + kGradientScales), A(static_cast<size_t>(shape.N)), dx(maps.x.size());
  const GradientMatchingResult result{loss.data(), A.data()};
  cuda::gradient_matching(cuda_stream(), shape, kRange, options, {x.data(), y.data(), leaves.data(), stats.data()},
                          result);
  cuda::gradient_matching_grad(cuda_stream(), shape, kRange, options, {x.data(), y.data(), leaves.data(), stats.data()},
                               result, device_dloss.data(), dx.data());
  return {loss.host()[0], dx.host()};
}

TEST(GradientMatchingKernel, MatchesTheDefinition) {
  struct Case {
    const char* name;
    MapShape shape;
    GradientMatchingOptions options;
    double holes;
    bool all_schedules = false;
  };
  for (const Case& c : {Case{"four scales", {2, 19, 21}, {}, 0.2}, Case{"one scale", {2, 11, 9}, {.scales = 1}, 0.2},
                        Case{"reference", {1, 9, 17}, {.reference = true}, 0},
                        Case{"across bands and tiles", {1, 41, 7}, {}, 0.1, true},
                        Case{"across tiles", {1, 3, 75}, {}, 0.1}, Case{"one pixel", {1, 1, 1}, {}, 0}}) {
    SCOPED_TRACE(c.name);
    const MapPair maps(c.shape, 31, c.holes);
    const Doubles x = to_doubles(maps.x), y = to_doubles(maps.y);
    const auto loss = [&](const Doubles& moved) { return reference_loss(moved, y, c.shape, c.options); };
    const LossResult found = on_cpu(c.shape, c.options, maps.x, maps.y);
    const double expected = loss(x);
    EXPECT_NEAR(static_cast<double>(found.loss), expected, 2e-6 * (1 + expected));
    if (c.shape.pixels() > 1) {
      EXPECT_LE(max_relative_error(found.dx, numeric_gradient(x, y, loss)), 5e-6);
    }
    const LossResult here = on_cpu(c.shape, c.options, maps.x, maps.y, -2.5f);
    const auto compare = [&] {
      const LossResult device = on_cuda(c.shape, c.options, maps, -2.5f);
      EXPECT_NEAR(device.loss, here.loss, 2e-6f * (1 + here.loss));
      EXPECT_LE(max_relative_error(device.dx, here.dx), 2e-6);
    };
    if (c.all_schedules) {
      for_each_schedule(compare);
    } else {
      compare();
    }
  }
}

TEST(GradientMatchingKernel, NothingCountedAndNanStudents) {
  const MapShape shape{2, 6, 8};
  MapPair maps(shape, 16, 0.1);
  const std::vector<float> nothing(maps.x.size(), std::numeric_limits<float>::quiet_NaN());
  const LossResult found = on_cpu(shape, {}, maps.x, nothing);
  EXPECT_EQ(found.loss, 0.0f);
  EXPECT_EQ(found.dx, std::vector<float>(nothing.size(), 0.0f));
  maps.x[20] = nothing[0];
  maps.y[20] = 1.0f;
  EXPECT_TRUE(std::isnan(on_cpu(shape, {}, maps.x, maps.y).loss));
}

TEST(GradientMatchingKernel, SameBitsWithAnyNumberOfThreads) {
  const MapShape shape{2, 70, 33};
  const MapPair maps(shape, 17, 0.1);
  const int threads = num_threads();
  set_num_threads(1);
  const LossResult one = on_cpu(shape, {}, maps.x, maps.y);
  for (const int count : {2, 3, 8}) {
    set_num_threads(count);
    const LossResult found = on_cpu(shape, {}, maps.x, maps.y);
    EXPECT_EQ(found.loss, one.loss);
    EXPECT_EQ(found.dx, one.dx);
  }
  set_num_threads(threads);
}

}  // namespace
}  // namespace depthstill
