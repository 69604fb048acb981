#include "kernels/context/context_loss.h"
#include "kernels/context/context_statistics.h"
#include "kernels/core/parallel.h"
#include "tests/kernels/context_reference.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr auto kRange = ContextKind::kRange, kQuantile = ContextKind::kQuantile, kGrid = ContextKind::kGrid;
constexpr auto kHybrid = ContextNorm::kHybrid, kLocal = ContextNorm::kLocal, kGlobal = ContextNorm::kGlobal,
               kNone = ContextNorm::kNone;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct LossResult {
  float loss;
  std::vector<float> dx;
};

LossResult on_cpu(const MapShape& shape, const ReferenceOptions& options, const std::vector<float>& x,
                  const std::vector<float>& y, const ContextLossOptions& loss_options, float dloss = 1.0f) {
  const auto contexts = static_cast<size_t>(shape.N * context_count(options.kind));
  std::vector<uint8_t> leaves(x.size(), 77);
  std::vector<ContextStats> stats(2 * contexts);
  const bool none = options.norm == kNone;
  if (!none) {
    cpu::context_statistics(cpu_stream(), shape, options.rule(), x.data(), y.data(), leaves.data(), stats.data());
  }
  std::vector<float> loss = nan_values<float>(2), dx = nan_values<float>(x.size());
  std::vector<ContextSums> sums(contexts, ContextSums{kNan, kNan});
  std::vector<TrimBorder> borders(static_cast<size_t>(shape.N), TrimBorder{kNan, kNan});
  const ContextLossResult result{loss.data(), none ? nullptr : sums.data(), borders.data()};
  const uint8_t* of_leaves = none ? nullptr : leaves.data();
  const ContextStats* of_stats = none ? nullptr : stats.data();
  cpu::context_loss(cpu_stream(), shape, options.kind, loss_options, {x.data(), y.data(), of_leaves, of_stats}, result);
  cpu::context_loss_grad(cpu_stream(), shape, options.kind, loss_options, {x.data(), y.data(), of_leaves, of_stats},
                         result, &dloss, dx.data());
  return {loss[0], dx};
}

LossResult on_cpu(const MapShape& shape, const ReferenceOptions& options, const MapPair& maps, float dloss = 1.0f) {
  return on_cpu(shape, options, maps.x, maps.y, options.loss(), dloss);
}

LossResult on_cuda(const MapShape& shape, const ReferenceOptions& options, const MapPair& maps, float dloss) {
  const auto contexts = static_cast<size_t>(shape.N * context_count(options.kind));
  const DeviceArray<float> x(maps.x), y(maps.y), device_dloss(std::vector<float>{dloss});
  DeviceArray<uint8_t> leaves(maps.x.size());
  DeviceArray<ContextStats> stats(2 * contexts);
  const bool none = options.norm == kNone;
  if (!none) {
    cuda::context_statistics(cuda_stream(), shape, options.rule(), x.data(), y.data(), leaves.data(), stats.data());
  }
  DeviceArray<float> loss(2), dx(maps.x.size());
  DeviceArray<ContextSums> sums(contexts);
  DeviceArray<TrimBorder> borders(static_cast<size_t>(shape.N));
  const ContextLossResult result{loss.data(), none ? nullptr : sums.data(), borders.data()};
  const uint8_t* of_leaves = none ? nullptr : leaves.data();
  const ContextStats* of_stats = none ? nullptr : stats.data();
  cuda::context_loss(cuda_stream(), shape, options.kind, options.loss(), {x.data(), y.data(), of_leaves, of_stats},
                     result);
  cuda::context_loss_grad(cuda_stream(), shape, options.kind, options.loss(), {x.data(), y.data(), of_leaves, of_stats},
                          result, device_dloss.data(), dx.data());
  return {loss.host()[0], dx.host()};
}

struct Case {
  const char* name;
  MapShape shape;
  ReferenceOptions options;
  double holes;
};

// Loss and gradient against the definition in double, whose gradient is found by differences. No pixel of these maps
// lies within the step of a corner.
TEST(ContextLossKernel, MatchesTheDefinition) {
  for (const Case& c :
       {Case{"hybrid", {2, 9, 11}, {kHybrid, kRange}, 0.2},
        Case{"hybrid, quantiles", {2, 9, 11}, {kHybrid, kQuantile}, 0.2},
        Case{"hybrid, cells", {2, 9, 11}, {kHybrid, kGrid}, 0.2}, Case{"local", {2, 9, 11}, {kLocal, kRange}, 0.2},
        Case{"global", {2, 9, 11}, {kGlobal, kRange}, 0.2}, Case{"none", {2, 9, 11}, {kNone, kRange}, 0.2},
        Case{"trim", {2, 9, 11}, {kHybrid, kRange, false, 0.1}, 0.2},
        Case{"trim without norm", {2, 9, 11}, {kNone, kRange, false, 0.25}, 0.2},
        Case{"reference", {2, 9, 11}, {kHybrid, kRange, true}, 0.2},
        Case{"reference, local, quantiles", {2, 9, 11}, {kLocal, kQuantile, true}, 0.2},
        Case{"reference, global, trim", {2, 9, 11}, {kGlobal, kRange, true, 0.1}, 0.2},
        Case{"one pixel", {1, 1, 1}, {kHybrid, kRange}, 0}}) {
    SCOPED_TRACE(c.name);
    const MapPair maps(c.shape, 21, c.holes);
    const Doubles x = to_doubles(maps.x), y = to_doubles(maps.y);
    const auto loss = [&](const Doubles& moved) { return reference_loss(moved, y, c.shape, c.options); };
    const LossResult found = on_cpu(c.shape, c.options, maps);
    const double expected = loss(x);
    EXPECT_NEAR(static_cast<double>(found.loss), expected, 2e-6 * (1 + expected));
    const Doubles gradient = numeric_gradient(x, y, loss);
    if (c.shape.pixels() > 1) {
      EXPECT_LE(max_relative_error(found.dx, gradient), 5e-6);
    }
    const LossResult device = on_cuda(c.shape, c.options, maps, -1.5f);
    const LossResult here = on_cpu(c.shape, c.options, maps, -1.5f);
    EXPECT_NEAR(device.loss, here.loss, 2e-6f * (1 + here.loss));
    EXPECT_LE(max_relative_error(device.dx, here.dx), 2e-6);
  }
}

TEST(ContextLossKernel, SeveralChunksMatchTheDefinition) {
  for (const ReferenceOptions& options :
       {ReferenceOptions{kHybrid, kRange}, ReferenceOptions{kHybrid, kQuantile, false, 0.3}}) {
    const MapShape shape{2, 70, 90};
    const MapPair maps(shape, 4, 0.1);
    const double expected = reference_loss(to_doubles(maps.x), to_doubles(maps.y), shape, options);
    EXPECT_NEAR(static_cast<double>(on_cpu(shape, options, maps).loss), expected, 2e-6 * (1 + expected));
  }
}

TEST(ContextLossKernel, SeveralBlocksUnderAllSchedules) {
  for (const ReferenceOptions& options :
       {ReferenceOptions{kHybrid, kRange}, ReferenceOptions{kHybrid, kQuantile, false, 0.3}}) {
    const MapShape shape{1, 33, 40};
    const MapPair maps(shape, 4, 0.1);
    const LossResult here = on_cpu(shape, options, maps);
    for_each_schedule([&] {
      const LossResult device = on_cuda(shape, options, maps, 1.0f);
      EXPECT_NEAR(device.loss, here.loss, 2e-6f * (1 + here.loss));
      EXPECT_LE(max_relative_error(device.dx, here.dx), 2e-6);
    });
  }
}

// HDN's published figures, on 8 x 8 maps; "masked": row 0 and (5, 3) do not count.
TEST(ContextLossKernel, HdnAsCoded) {
  const MapShape shape{1, 8, 8};
  std::vector<float> x, y;
  for (int i = 0; i < 64; ++i) {
    const auto at = static_cast<float>(i);
    y.push_back(1.5f + std::sin(0.7f * at) + 0.02f * at);
    x.push_back(0.3f + 0.5f * std::sin(0.7f * at + 0.2f) + 0.015f * at + 0.1f * std::cos(1.3f * at));
  }
  std::vector<float> masked = y;
  for (const int i : {0, 1, 2, 3, 4, 5, 6, 7, 43}) masked[static_cast<size_t>(i)] = kNan;
  struct Row {
    ContextNorm norm;
    ContextKind kind;
    float full, masked;
  };
  for (const Row& row : {Row{kGlobal, kRange, .305757f, .270632f}, Row{kHybrid, kRange, .541778f, .546435f},
                         Row{kHybrid, kQuantile, .570466f, .572504f}, Row{kHybrid, kGrid, .441887f, .391109f},
                         Row{kLocal, kRange, .773408f, .741005f}, Row{kLocal, kQuantile, .859473f, .819212f}}) {
    const ReferenceOptions options{row.norm, row.kind, true};
    EXPECT_NEAR(on_cpu(shape, options, x, y, options.loss()).loss, row.full, 2e-6f);
    EXPECT_NEAR(on_cpu(shape, options, x, masked, options.loss()).loss, row.masked, 2e-6f);
  }
}

// The loss does not see shift and scale of either map: dx sums to 0, and to 0 with x, where no s was bounded.
TEST(ContextLossKernel, GradientIsFreeOfShiftAndScale) {
  const MapShape shape{3, 25, 30};
  MapPair maps(shape, 12, 0.1);
  for (size_t i = 0; i < maps.x.size(); i += 3) maps.x[i] = 7.25f;  // many pixels at the median
  for (const ReferenceOptions& options :
       {ReferenceOptions{kHybrid, kRange}, {kHybrid, kGrid}, {kLocal, kQuantile}, {kGlobal, kRange}}) {
    const LossResult found = on_cpu(shape, options, maps);
    for (int64_t n = 0; n < shape.N; ++n) {
      double sum = 0, with_x = 0, size = 0, size_with_x = 0;
      for (int64_t i = n * shape.pixels(); i < (n + 1) * shape.pixels(); ++i) {
        const auto at = static_cast<size_t>(i);
        if (!std::isfinite(maps.y[at])) continue;
        const auto d = static_cast<double>(found.dx[at]), x = static_cast<double>(maps.x[at]);
        sum += d;
        size += std::abs(d);
        with_x += d * x;
        size_with_x += std::abs(d * x);
      }
      EXPECT_LE(std::abs(sum), 1e-6 * size);
      EXPECT_LE(std::abs(with_x), 1e-6 * size_with_x);
    }
  }
}

TEST(ContextLossKernel, ScalesAndOrderOfMaps) {
  const MapShape shape{2, 17, 19};
  const MapPair maps(shape, 13, 0.2);
  const LossResult found = on_cpu(shape, {}, maps);
  std::vector<float> x4 = maps.x, y3 = maps.y, x_swapped = maps.x, y_swapped = maps.y;
  for (float& v : x4) v *= 4.0f;
  for (float& v : y3) v = 3.0f * v + 7.0f;
  const LossResult scaled = on_cpu(shape, {}, x4, maps.y, {});
  EXPECT_EQ(scaled.loss, found.loss);
  for (size_t i = 0; i < x4.size(); ++i) ASSERT_EQ(scaled.dx[i], found.dx[i] / 4.0f) << i;
  EXPECT_NEAR(on_cpu(shape, {}, maps.x, y3, {}).loss, found.loss, 1e-5f);
  const auto pixels = static_cast<std::ptrdiff_t>(shape.pixels());
  std::rotate(x_swapped.begin(), x_swapped.begin() + pixels, x_swapped.end());
  std::rotate(y_swapped.begin(), y_swapped.begin() + pixels, y_swapped.end());
  std::vector<float> dx_swapped = on_cpu(shape, {}, x_swapped, y_swapped, {}).dx;
  std::rotate(dx_swapped.begin(), dx_swapped.begin() + pixels, dx_swapped.end());
  EXPECT_EQ(dx_swapped, found.dx);
}

// The argument of the paper: where the teacher errs in the near half of its range, the leaf and the half of far pixels
// do not change. Of what their gradient changes under a global norm, a third is left under the hybrid one.
TEST(ContextLossKernel, ErrorsStayInTheirHalf) {
  const MapShape shape{1, 24, 26};
  const MapPair maps(shape, 30, 0);
  const auto [low, high] = std::minmax_element(maps.y.begin(), maps.y.end());
  const auto share_of = [&, low = *low, high = *high](float v) { return (v - low) / (high - low); };
  std::vector<float> moved = maps.y;
  for (float& v : moved) {
    const float share = share_of(v);
    if (share > 0.5f) v = *low + (*high - *low) * (0.5f + 0.5f * std::pow(2.0f * share - 1.0f, 3.0f));
  }
  const ReferenceOptions hybrid{kHybrid, kRange}, global{kGlobal, kRange};
  const auto change = [&](const ReferenceOptions& options) {
    const LossResult before = on_cpu(shape, options, maps.x, maps.y, options.loss());
    LossResult after = on_cpu(shape, options, maps.x, moved, options.loss());
    for (size_t i = 0; i < moved.size(); ++i) after.dx[i] -= before.dx[i];
    return after.dx;
  };
  const std::vector<float> of_hybrid = change(hybrid), of_global = change(global);
  float largest = 0.0f;
  for (size_t i = 0; i < moved.size(); ++i) {
    if (share_of(maps.y[i]) < 0.5f) largest = std::max(largest, std::fabs(of_global[i]));
  }
  EXPECT_GT(largest, 1e-4f);
  for (size_t i = 0; i < moved.size(); ++i) {
    if (share_of(maps.y[i]) >= 0.5f) continue;
    EXPECT_NEAR(of_hybrid[i], of_global[i] / 3.0f, 1e-5f * largest) << i;
  }
}

TEST(ContextLossKernel, HeldStatistics) {
  const MapShape shape{1, 9, 10};
  const MapPair maps(shape, 14, 0.1);
  const ReferenceOptions global{kGlobal, kRange};
  ContextLossOptions options = global.loss();
  const LossResult free = on_cpu(shape, global, maps.x, maps.y, options);
  options.detach = ContextDetach::kBoth;
  const LossResult both = on_cpu(shape, global, maps.x, maps.y, options);
  options.detach = ContextDetach::kMedian;
  const LossResult median = on_cpu(shape, global, maps.x, maps.y, options);
  EXPECT_EQ(both.loss, free.loss);
  // With both held, dx is the slope of |a - b| alone: the same size everywhere.
  const Doubles y = to_doubles(maps.y), x = to_doubles(maps.x);
  Mask counted(y.size());
  double n = 0;
  for (size_t i = 0; i < y.size(); ++i) n += counted[i] = std::isfinite(y[i]);
  const ReferenceStats stats = reference_stats(x, counted, false);
  size_t at_median = y.size();
  for (size_t i = 0; i < y.size(); ++i) {
    if (!counted[i]) continue;
    EXPECT_NEAR(std::abs(static_cast<double>(both.dx[i])), 1 / (stats.s * n), 1e-5 / (stats.s * n));
    if (x[i] == stats.t) {
      at_median = i;
    } else {
      EXPECT_EQ(median.dx[i], free.dx[i]);
    }
  }
  ASSERT_LT(at_median, y.size());
  EXPECT_EQ(median.dx[at_median], both.dx[at_median]);
  EXPECT_NE(median.dx[at_median], free.dx[at_median]);
}

TEST(ContextLossKernel, ConstantMapsHaveFiniteGradients) {
  const MapShape shape{1, 6, 8};
  const MapPair maps(shape, 15, 0);
  const std::vector<float> constant(maps.x.size(), 1.75f);
  const auto finite = [](const LossResult& result) {
    return std::isfinite(result.loss) &&
           std::all_of(result.dx.begin(), result.dx.end(), [](float d) { return std::isfinite(d); });
  };
  EXPECT_TRUE(finite(on_cpu(shape, {}, constant, maps.y, {})));
  EXPECT_TRUE(finite(on_cpu(shape, {}, maps.x, constant, {})));
  const LossResult equal = on_cpu(shape, {}, constant, constant, {});
  EXPECT_EQ(equal.loss, 0.0f);
  EXPECT_EQ(equal.dx, std::vector<float>(maps.x.size(), 0.0f));
}

TEST(ContextLossKernel, NothingCountedAndNanStudents) {
  const MapShape shape{2, 6, 8};
  const std::vector<float> nothing(2 * 48, kNan);
  for (const ContextNorm norm : {kHybrid, kNone}) {
    for (const double trim : {0.0, 0.5, 1.0}) {
      const ReferenceOptions options{norm, kRange, false, trim};
      MapPair maps(shape, 16, 0.1);
      LossResult found = on_cpu(shape, options, maps.x, nothing, options.loss());
      EXPECT_EQ(found.loss, 0.0f);
      EXPECT_EQ(found.dx, std::vector<float>(nothing.size(), 0.0f));
      if (trim == 1.0) {
        found = on_cpu(shape, options, maps);
        EXPECT_EQ(found.loss, 0.0f);
        continue;
      }
      maps.x[20] = kNan;
      maps.y[20] = 1.0f;
      found = on_cpu(shape, options, maps);
      EXPECT_TRUE(std::isnan(found.loss));
      EXPECT_TRUE(std::isnan(found.dx[20]));
    }
  }
}

TEST(ContextLossKernel, SameBitsWithAnyNumberOfThreads) {
  const MapShape shape{2, 95, 97};
  const MapPair maps(shape, 17, 0.1);
  const int threads = num_threads();
  for (const ReferenceOptions& options : {ReferenceOptions{kHybrid, kRange, false, 0.1}, {kLocal, kGrid}}) {
    set_num_threads(1);
    const LossResult one = on_cpu(shape, options, maps);
    for (const int count : {2, 3, 8}) {
      set_num_threads(count);
      const LossResult found = on_cpu(shape, options, maps);
      EXPECT_EQ(found.loss, one.loss);
      EXPECT_EQ(found.dx, one.dx);
    }
  }
  set_num_threads(threads);
}

}  // namespace
}  // namespace depthstill
