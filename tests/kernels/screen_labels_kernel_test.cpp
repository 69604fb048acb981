#include "kernels/screen_labels.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(LabelFault, IsThatOfAConstantOrEmptyMap) {
  EXPECT_EQ(label_fault(kInfinity, -kInfinity), LabelFault::kEmpty);
  EXPECT_EQ(label_fault(0, 0), LabelFault::kConstant);
  EXPECT_EQ(label_fault(3, 3), LabelFault::kConstant);
  EXPECT_EQ(label_fault(100, 100.0001f), LabelFault::kConstant) << "within 1e-6 of the magnitude";
  EXPECT_EQ(label_fault(-100.0001f, -100), LabelFault::kConstant);
  EXPECT_EQ(label_fault(100, 100.001f), LabelFault::kNone);
  EXPECT_EQ(label_fault(-1, 1), LabelFault::kNone);
  EXPECT_EQ(label_fault(0, 1e-30f), LabelFault::kNone) << "a small map is one, too";
}

// Images: one that varies and has holes, one that is constant but for holes, one with nothing, one that is good.
struct Problem {
  static constexpr int64_t kN = 4;
  int64_t pixels, patch_pixels;
  std::vector<float> maps, patches, expected_maps, expected_patches;
  std::vector<LabelFault> faults{LabelFault::kNone, LabelFault::kConstant, LabelFault::kEmpty, LabelFault::kNone};

  Problem(int64_t p, int64_t q) : pixels(p), patch_pixels(q) {
    maps = random_values<float>(static_cast<size_t>(kN * p), 1, -3.0f, 8.0f);
    patches = random_values<float>(static_cast<size_t>(kN * q), 2, -3.0f, 8.0f);
    const auto at = [&](int64_t n, int64_t i) -> float& { return maps[static_cast<size_t>(n * pixels + i)]; };
    for (int64_t i = 0; i < pixels; ++i) {
      at(1, i) = i % 3 == 1 ? NAN : 4.0f;
      at(2, i) = i % 2 == 0 ? kInfinity : NAN;
    }
    at(0, pixels / 2) = -kInfinity;
    at(0, 0) = NAN;
    if (q > 2) patches[1] = kInfinity;
    expected_maps = maps;
    expected_patches = patches;
    const auto clear = [&](std::vector<float>& values, int64_t each) {
      for (size_t i = 0; i < values.size(); ++i) {
        const size_t n = i / static_cast<size_t>(each);
        if (faults[n] != LabelFault::kNone || !std::isfinite(values[i])) values[i] = NAN;
      }
    };
    clear(expected_maps, p);
    if (q > 0) clear(expected_patches, q);
  }
};

void expect_same(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(found[i])) << i;
    } else {
      ASSERT_EQ(found[i], expected[i]) << i;
    }
  }
}

TEST(ScreenLabelsKernel, ClearsWhatTeachesNothingAndCountsIt) {
  for (const auto& [pixels, patch_pixels] : {std::pair<int64_t, int64_t>{7, 0}, {1031, 0}, {2057, 3 * 521}}) {
    SCOPED_TRACE(pixels);
    const Problem p(pixels, patch_pixels);
    std::vector<float> maps = p.maps, patches = p.patches;
    std::vector<LabelFault> faults(Problem::kN, LabelFault::kEmpty);
    LabelTally tally{10, 3};
    cpu::screen_labels(cpu_stream(), Problem::kN, pixels, patch_pixels, maps.data(), patches.data(), faults.data(),
                       &tally);
    expect_same(maps, p.expected_maps);
    expect_same(patches, p.expected_patches);
    EXPECT_EQ(faults, p.faults);
    EXPECT_EQ(tally.labels, 14);
    EXPECT_EQ(tally.empty, 5);
    for_each_schedule([&, pixels = pixels, patch_pixels = patch_pixels] {
      DeviceArray<float> map(p.maps), patch(p.patches);
      DeviceArray<LabelFault> fault(static_cast<size_t>(Problem::kN));
      DeviceArray<LabelTally> counted(std::vector<LabelTally>{{10, 3}});
      cuda::screen_labels(cuda_stream(), Problem::kN, pixels, patch_pixels, map.data(), patch.data(), fault.data(),
                          counted.data());
      expect_same(map.host(), p.expected_maps);
      expect_same(patch.host(), p.expected_patches);
      EXPECT_EQ(fault.host(), p.faults);
      EXPECT_EQ(counted.host()[0].labels, 14);
      EXPECT_EQ(counted.host()[0].empty, 5);
    });
  }
}

}  // namespace
}  // namespace depthstill
