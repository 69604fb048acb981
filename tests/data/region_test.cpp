#include "engine/data/region.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <string>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

using Starts = std::vector<std::pair<int, int>>;

Starts starts_of(const Region& region) {
  Starts starts;
  for (const Region::Patch& patch : region.patches) starts.emplace_back(patch.row, patch.column);
  return starts;
}

// What a second implementation of generator and draws, in Python, gives for seed 70, epoch 1 and half of the regions
// mirrored.
TEST(Region, DrawsRepeatThoseOfAnotherProgram) {
  struct Case {
    ImageSize image;
    int64_t index;
    int top, left, side;
    bool mirrored;
    int scaled;
    Starts patches;
  };
  RegionSpec spec;
  spec.flip_probability = 0.5;
  for (const Case& c : {Case{{2250, 1500}, 0, 146, 437, 1345, false, 1345, {{0, 785}, {392, 785}, {785, 785}, {0, 0}}},
                        Case{{2250, 1500}, 199999, 566, 279, 902, true, 902, {{0, 342}, {342, 342}, {0, 0}, {342, 0}}},
                        Case{{1500, 2250}, 1, 1228, 575, 881, false, 881, {{321, 0}, {321, 321}, {0, 0}, {0, 321}}},
                        Case{{640, 480}, 0, 0, 77, 480, false, 644, {{84, 0}, {0, 0}, {0, 84}, {84, 84}}},
                        Case{{644, 644}, 199999, 0, 0, 644, true, 644, {{0, 84}, {84, 84}, {0, 0}, {84, 0}}}}) {
    const Region region = draw_region(spec, c.image, 70, 1, c.index);
    SCOPED_TRACE(c.index);
    EXPECT_EQ(region.top, c.top);
    EXPECT_EQ(region.left, c.left);
    EXPECT_EQ(region.side, c.side);
    EXPECT_EQ(region.mirrored, c.mirrored);
    EXPECT_EQ(region.scaled, c.scaled);
    EXPECT_EQ(starts_of(region), c.patches);
  }
}

TEST(Region, TeachersRepeatThoseOfAnotherProgram) {
  const std::vector<double> weights = {0.7, 0.3};
  std::string drawn;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    for (int64_t step = 0; step < 40; ++step) drawn += std::to_string(draw_teacher(weights, 70, epoch, step));
  }
  EXPECT_EQ(drawn, "00000100001100000011000011001000000001000011111010001001100000100001100100010001");
}

TEST(Region, LiesInTheImageAndHoldsItsPatches) {
  for (const ImageSize image : {ImageSize{900, 700}, ImageSize{33, 50}, ImageSize{1, 1}, ImageSize{3000, 2000}}) {
    RegionSpec spec;
    spec.patches = 3;
    int least = 1 << 30, most = 0;
    for (int64_t i = 0; i < 300; ++i) {
      const Region region = draw_region(spec, image, 1, 0, i);
      ASSERT_TRUE(region.top >= 0 && region.left >= 0 && region.top + region.side <= image.height &&
                  region.left + region.side <= image.width);
      ASSERT_FALSE(region.mirrored);
      least = std::min(least, region.side);
      most = std::max(most, region.side);
      const Starts patches = starts_of(region);
      ASSERT_EQ(std::set(patches.begin(), patches.end()).size(), 3u);
      for (const auto& [row, column] : patches) {
        ASSERT_TRUE(row >= 0 && column >= 0 && std::max(row, column) + spec.patch <= region.scaled);
      }
    }
    const int shorter = std::min(image.width, image.height), low = std::min(spec.least, shorter);
    EXPECT_LE(least - low, (shorter - low) / 20);
    EXPECT_LE(shorter - most, (shorter - low) / 20);
  }
}

TEST(Region, MorePatchesThanTheGridHasAreRepeated) {
  RegionSpec spec;
  spec.patches = 6;
  const Starts patches = starts_of(draw_region(spec, {700, 700}, 3, 0, 0));
  EXPECT_EQ(std::set(patches.begin(), patches.end()).size(), 4u);
  EXPECT_EQ(patches[4], patches[0]);
  EXPECT_EQ(patches[5], patches[1]);
}

// The patches are those of the same sample without `centred`, where the side has the same grid.
TEST(Region, CentredIsTheMiddleAndNeverMirrored) {
  RegionSpec spec;
  spec.centred = true;
  spec.flip_probability = 1.0;
  const Region region = draw_region(spec, {641, 480}, 5, 2, 7);
  EXPECT_EQ(region.top, 0);
  EXPECT_EQ(region.left, 80);
  EXPECT_EQ(region.side, 480);
  EXPECT_FALSE(region.mirrored);
  spec.centred = false;
  const Region random = draw_region(spec, {641, 480}, 5, 2, 7);
  EXPECT_TRUE(random.mirrored);
  EXPECT_EQ(starts_of(region), starts_of(random));
}

TEST(Region, SaysWhatItNeeds) {
  RegionSpec spec;
  EXPECT_THROW(draw_region(spec, {0, 5}, 1, 0, 0), Error);
  spec.patch = 645;
  EXPECT_THROW(draw_region(spec, {700, 700}, 1, 0, 0), Error);
  const std::vector<std::vector<double>> refused = {
      {}, {0.0, 0.0}, {1.0, -0.5}, {std::numeric_limits<double>::quiet_NaN()}};
  for (const std::vector<double>& weights : refused) {
    EXPECT_THROW(draw_teacher(weights, 1, 0, 0), Error);
  }
}

TEST(Region, ATeacherWithoutAShareIsNeverDrawn) {
  const std::vector<double> weights = {2.0, 0.0};
  for (int64_t step = 0; step < 100; ++step) ASSERT_EQ(draw_teacher(weights, 9, 0, step), 0);
}

}  // namespace
}  // namespace depthstill
