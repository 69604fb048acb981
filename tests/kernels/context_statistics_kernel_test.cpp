#include "kernels/context/context_statistics.h"
#include "kernels/core/parallel.h"
#include "tests/kernels/context_reference.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr auto kRange = ContextKind::kRange, kQuantile = ContextKind::kQuantile, kGrid = ContextKind::kGrid;

struct Statistics {
  std::vector<uint8_t> leaves;
  std::vector<ContextStats> stats;

  Statistics(const MapShape& shape, ContextKind kind)
      : leaves(static_cast<size_t>(shape.N * shape.pixels()), 77),
        stats(static_cast<size_t>(2 * shape.N * context_count(kind)), ContextStats{NAN, NAN, -1, -1, -1}) {}
  bool operator==(const Statistics& other) const {
    return leaves == other.leaves &&
           std::memcmp(stats.data(), other.stats.data(), stats.size() * sizeof(ContextStats)) == 0;
  }
};

Statistics on_cpu(const MapShape& shape, const ContextRule& rule, const std::vector<float>& x,
                  const std::vector<float>& y) {
  Statistics found(shape, rule.kind);
  cpu::context_statistics(cpu_stream(), shape, rule, x.data(), y.data(), found.leaves.data(), found.stats.data());
  return found;
}

Statistics on_cuda(const MapShape& shape, const ContextRule& rule, const std::vector<float>& x,
                   const std::vector<float>& y) {
  Statistics found(shape, rule.kind);
  const DeviceArray<float> device_x(x), device_y(y);
  DeviceArray<uint8_t> leaves(found.leaves.size());
  DeviceArray<ContextStats> stats(found.stats.size());
  cuda::context_statistics(cuda_stream(), shape, rule, device_x.data(), device_y.data(), leaves.data(), stats.data());
  found.leaves = leaves.host();
  found.stats = stats.host();
  return found;
}

// The contexts of a grid's two finer levels stand in Z order.
size_t z_order(size_t context) {
  if (context == 20) return 20;
  if (context >= 16) return context;
  const size_t r = context / 4, c = context % 4;
  return (r / 2 * 2 + c / 2) * 4 + r % 2 * 2 + c % 2;
}

void expect_sorted(const MapShape& shape, const ReferenceOptions& options, const std::vector<float>& x,
                   const std::vector<float>& y, const Statistics& found) {
  const auto contexts = static_cast<size_t>(context_count(options.kind));
  for (int64_t n = 0; n < shape.N; ++n) {
    const Doubles yi = image_of(to_doubles(y), n, shape.pixels()), xi = image_of(to_doubles(x), n, shape.pixels());
    if (std::none_of(yi.begin(), yi.end(), [](double v) { return std::isfinite(v); })) continue;
    const auto masks = reference_contexts(yi, shape.H, shape.W, options);
    ASSERT_EQ(masks.size(), contexts);
    for (size_t u = 0; u < contexts; ++u) {
      for (const bool teacher : {false, true}) {
        SCOPED_TRACE(::testing::Message() << "image " << n << ", context " << u << (teacher ? " of y" : " of x"));
        const ReferenceStats expected = reference_stats(teacher ? yi : xi, masks[u], options.reference);
        const size_t at = options.kind == kGrid ? z_order(u) : u;
        const ContextStats& stats = found.stats[static_cast<size_t>((teacher ? shape.N : 0) + n) * contexts + at];
        EXPECT_EQ(stats.n, expected.n);
        EXPECT_EQ(stats.t, static_cast<float>(expected.t));
        EXPECT_EQ(stats.below, expected.below);
        EXPECT_EQ(stats.equal, expected.equal);
        EXPECT_NEAR(static_cast<double>(stats.s), expected.s, 1e-6 * expected.s);
      }
    }
  }
}

// On CUDA all but s has the same bits.
void expect_same(const Statistics& actual, const Statistics& expected) {
  EXPECT_EQ(actual.leaves, expected.leaves);
  for (size_t i = 0; i < expected.stats.size(); ++i) {
    SCOPED_TRACE(::testing::Message() << "statistics " << i);
    const ContextStats &a = actual.stats[i], &e = expected.stats[i];
    EXPECT_EQ(a.t, e.t);
    EXPECT_EQ(a.n, e.n);
    EXPECT_EQ(a.below, e.below);
    EXPECT_EQ(a.equal, e.equal);
    EXPECT_NEAR(a.s, e.s, 1e-6f * e.s);
  }
}

void expect_statistics(const MapShape& shape, const ReferenceOptions& options, const std::vector<float>& x,
                       const std::vector<float>& y, bool all_schedules = false) {
  const Statistics found = on_cpu(shape, options.rule(), x, y);
  expect_sorted(shape, options, x, y, found);
  const auto compare = [&] { expect_same(on_cuda(shape, options.rule(), x, y), found); };
  if (all_schedules) {
    for_each_schedule(compare);
  } else {
    compare();
  }
}

TEST(ContextStatisticsKernel, MatchSorting) {
  struct Case {
    const char* name;
    MapShape shape;
    ReferenceOptions options;
    double holes;
    bool all_schedules = false;
  };
  const ContextNorm hybrid = ContextNorm::kHybrid;
  for (const Case& c : {Case{"one pixel", {1, 1, 1}, {hybrid, kRange}, 0},
                        Case{"packs, a second round of the grid", {2, 112, 124}, {hybrid, kRange}, 0.1, true},
                        Case{"no packs", {2, 13, 7}, {hybrid, kRange}, 0.3},
                        Case{"quantiles", {2, 41, 31}, {hybrid, kQuantile}, 0.2, true},
                        Case{"cells", {2, 19, 23}, {hybrid, kGrid}, 0.2},
                        Case{"fewer pixels than cells", {1, 3, 2}, {hybrid, kGrid}, 0},
                        Case{"reference", {1, 17, 13}, {hybrid, kRange, true}, 0.2},
                        Case{"reference, quantiles", {1, 17, 13}, {hybrid, kQuantile, true}, 0.2}}) {
    SCOPED_TRACE(c.name);
    const MapPair maps(c.shape, 5, c.holes);
    expect_statistics(c.shape, c.options, maps.x, maps.y, c.all_schedules);
  }
}

// Keys of every exponent and sign, both zeros, ties, one value alone.
TEST(ContextStatisticsKernel, AwkwardValues) {
  const MapShape shape{1, 24, 20};
  const auto size = static_cast<size_t>(shape.pixels());
  const auto bits = random_values<float>(2 * size, 9, 0.0f, 1.0f);
  std::vector<float> powers, integers, zeros, constant(size, -2.5f), extremes(size, 1.0f);
  for (size_t i = 0; i < size; ++i) {
    powers.push_back((bits[i] < 0.4f ? -1.0f : 1.0f) * std::exp2(250.0f * bits[size + i] - 125.0f));
    integers.push_back(std::floor(5.0f * bits[i]));
    zeros.push_back(bits[i] < 0.3f ? 0.0f : bits[i] < 0.6f ? -0.0f : bits[i] - 0.8f);
  }
  extremes[3] = std::numeric_limits<float>::max();
  extremes[4] = -std::numeric_limits<float>::max();
  const MapPair maps(shape, 5, 0.1);
  for (const std::vector<float>* x : {&powers, &integers, &zeros, &constant}) {
    expect_statistics(shape, {}, *x, maps.y);
    expect_statistics(shape, {ContextNorm::kHybrid, kQuantile}, maps.x, *x);
  }
  expect_statistics(shape, {}, maps.x, extremes);
}

TEST(ContextStatisticsKernel, NothingCounted) {
  const MapShape shape{2, 5, 9};
  MapPair maps(shape, 3, 0);
  std::fill_n(maps.y.begin(), shape.pixels(), std::numeric_limits<float>::infinity());
  for (const ContextKind kind : {kRange, kQuantile, kGrid}) {
    const Statistics found = on_cpu(shape, {kind}, maps.x, maps.y);
    for (int u = 0; u < context_count(kind); ++u) {
      for (const int map : {0, 2}) {
        const int at = map * context_count(kind) + u;
        const ContextStats& stats = found.stats[static_cast<size_t>(at)];
        EXPECT_EQ(stats.n, 0);
        EXPECT_EQ(stats.t, 0.0f);
        EXPECT_EQ(stats.s, kLeastDeviation);
        EXPECT_EQ(stats.equal, 0);
      }
    }
    EXPECT_EQ(found.leaves[0], kNotCounted);
    expect_same(on_cuda(shape, {kind}, maps.x, maps.y), found);
  }
}

TEST(ContextStatisticsKernel, GarbageUnderHolesChangesNothing) {
  const MapShape shape{2, 29, 31};
  const MapPair maps(shape, 7, 0.3);
  std::vector<float> garbage = maps.x;
  for (size_t i = 0; i < garbage.size(); ++i) {
    if (!std::isfinite(maps.y[i])) garbage[i] = i % 2 != 0 ? std::numeric_limits<float>::quiet_NaN() : -1e38f;
  }
  EXPECT_TRUE(on_cpu(shape, {}, garbage, maps.y) == on_cpu(shape, {}, maps.x, maps.y));
}

TEST(ContextStatisticsKernel, SameBitsWithAnyNumberOfThreads) {
  const MapShape shape{3, 33, 35};
  const MapPair maps(shape, 8, 0.1);
  const int threads = num_threads();
  for (const ContextKind kind : {kRange, kQuantile, kGrid}) {
    set_num_threads(1);
    const Statistics one = on_cpu(shape, {kind}, maps.x, maps.y);
    for (const int count : {2, 3, 8}) {
      set_num_threads(count);
      EXPECT_TRUE(on_cpu(shape, {kind}, maps.x, maps.y) == one) << count << " threads";
    }
  }
  set_num_threads(threads);
}

}  // namespace
}  // namespace depthstill
