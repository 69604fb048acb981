#include "kernels/depth_target.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr DepthRange kRange{0.5f, 80.0f};

TEST(ValidDepth, IsFiniteAboveZeroAndWithinTheRange) {
  const float above = std::nextafter(80.0f, 100.0f), below = std::nextafter(0.5f, 0.0f);
  for (const float depth : {0.5f, 1.0f, 80.0f}) EXPECT_TRUE(valid_depth(depth, kRange)) << depth;
  for (const float depth : {below, above, 655.35f, 0.0f, -0.0f, -1.0f, NAN, kInfinity, -kInfinity}) {
    EXPECT_FALSE(valid_depth(depth, kRange)) << depth;
  }
  for (const float depth : {1e-30f, 1e30f}) EXPECT_TRUE(valid_depth(depth)) << depth;
  for (const float depth : {0.0f, -1.0f, NAN, kInfinity}) EXPECT_FALSE(valid_depth(depth)) << depth;
  // Without the ends, which are floats.
  const DepthRange open = exclusive_range(1e-3f, 80.0f);
  EXPECT_FALSE(valid_depth(1e-3f, open));
  EXPECT_TRUE(valid_depth(std::nextafter(1e-3f, 1.0f), open));
  EXPECT_TRUE(valid_depth(std::nextafter(80.0f, 0.0f), open));
  EXPECT_FALSE(valid_depth(80.0f, open));
  EXPECT_FALSE(valid_depth(0.5f, exclusive_range(0.5f, 1.0f)));
}

struct Case {
  DepthTargetShape shape;
  TargetMode mode;
};

const Case kCases[] = {
    {{2, 5, 67, 5, 0}, TargetMode::kMask}, {{2, 5, 67, 5, 2}, TargetMode::kMask},
    {{3, 7, 31, 4, 0}, TargetMode::kMask}, {{2, 9, 257, 6, 1}, TargetMode::kClamp},
    {{1, 1, 1, 1, 0}, TargetMode::kMask},
};

struct Problem {
  std::vector<float> target, expected;
  TargetTally tally{10, 3};

  explicit Problem(const Case& c) {
    const DepthTargetShape& s = c.shape;
    target = random_values<float>(static_cast<size_t>(s.N * s.H * s.W), 1, 0.5f, 80.0f);
    const float odd[] = {0.0f, -2.0f, NAN, kInfinity, -kInfinity, 655.35f, 0.25f, 80.0f};
    const float clamped[] = {0.0f, 0.0f, 0.0f, 80.0f, 0.0f, 80.0f, 0.25f, 80.0f};
    std::vector<float> result = target;
    for (size_t i = 0; i < target.size(); i += 3) {
      target[i] = odd[i / 3 % 8];
      result[i] = c.mode == TargetMode::kClamp ? clamped[i / 3 % 8] : i / 3 % 8 == 7 ? 80.0f : 0.0f;
    }
    int64_t pixels = 0;
    for (int64_t i = 0; i < s.N * s.H * s.W; ++i) {
      const int64_t row = i / s.W % s.H - (s.H - s.rows);
      if (row < 0) continue;
      const auto at = static_cast<size_t>(i);
      expected.push_back(result[at]);
      pixels += row >= s.first_row && valid_depth(target[at], kRange);
    }
    tally.pixels += pixels;
    if (pixels == 0) ++tally.empty;
  }
};

TEST(DepthTargetKernel, KeepsWhatCountsAndCountsIt) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(::testing::Message() << c.shape.H << "x" << c.shape.W << ", " << c.shape.rows << " rows from "
                                      << c.shape.first_row);
    const Problem p(c);
    auto y = nan_values<float>(p.expected.size());
    TargetTally tally{10, 3};
    cpu::depth_target(cpu_stream(), c.shape, kRange, c.mode, p.target.data(), y.data(), &tally);
    EXPECT_EQ(y, p.expected);
    EXPECT_EQ(tally.pixels, p.tally.pixels);
    EXPECT_EQ(tally.empty, p.tally.empty);
    for_each_schedule([&] {
      const DeviceArray<float> target(p.target);
      DeviceArray<float> result(p.expected.size());
      DeviceArray<TargetTally> counted(std::vector<TargetTally>{{10, 3}});
      cuda::depth_target(cuda_stream(), c.shape, kRange, c.mode, target.data(), result.data(), counted.data());
      EXPECT_EQ(result.host(), p.expected);
      EXPECT_EQ(counted.host()[0].pixels, p.tally.pixels);
      EXPECT_EQ(counted.host()[0].empty, p.tally.empty);
      DeviceArray<float> alone(p.expected.size());
      cuda::depth_target(cuda_stream(), c.shape, kRange, c.mode, target.data(), alone.data(), nullptr);
      EXPECT_EQ(alone.host(), p.expected);
    });
  }
}

}  // namespace
}  // namespace depthstill
