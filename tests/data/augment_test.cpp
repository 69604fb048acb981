#include "engine/data/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr ImageSize kFrame{1216, 352};
const AugmentSpec kKitti{.crop = {704, 352}};

TEST(augment, distribution) {
  const AugmentSpec spec = kKitti;
  constexpr int n = 20000;
  int rotated = 0, flipped = 0, coloured = 0;
  double offset = 0;
  int lowest = 1 << 30, highest = -1;
  for (int i = 0; i < n; ++i) {
    const AugmentParams params = draw_augment(spec, kFrame, 1, 2, i);
    const PreprocessParams& image = params.image;
    rotated += image.angle_degrees != 0.0f;
    flipped += image.flip;
    coloured += image.colour;
    offset += image.crop_x;
    lowest = std::min(lowest, image.crop_x);
    highest = std::max(highest, image.crop_x);
    EXPECT_EQ(image.crop_y, 0);
    EXPECT_LE(std::abs(image.angle_degrees), 2.5f);
    for (const float value : {image.gamma, image.brightness, image.gain[0], image.gain[1], image.gain[2]}) {
      EXPECT_GE(value, 0.9f);
      EXPECT_LE(value, 1.1f);
    }
    EXPECT_NE(image.gain[0], image.gain[1]);
    EXPECT_EQ(params.teacher.angle_degrees, image.angle_degrees);
    EXPECT_EQ(params.teacher.crop_x, image.crop_x);
    EXPECT_EQ(params.teacher.flip, image.flip);
  }
  const double error = 5 * 0.5 * std::sqrt(static_cast<double>(n));
  for (const int count : {rotated, flipped, coloured}) EXPECT_NEAR(count, 0.5 * n, error);
  EXPECT_NEAR(offset / n, 256, 5 * 148 / std::sqrt(static_cast<double>(n)));
  EXPECT_EQ(lowest, 0);
  EXPECT_EQ(highest, 512);
}

TEST(augment, depends_on_its_arguments_alone) {
  const AugmentSpec spec = kKitti;
  const auto angle_and_offset = [&](uint64_t seed, int64_t epoch, int64_t index) {
    const PreprocessParams image = draw_augment(spec, kFrame, seed, epoch, index).image;
    return std::pair(image.gamma, image.crop_x);
  };
  EXPECT_EQ(angle_and_offset(1, 2, 3), angle_and_offset(1, 2, 3));
  EXPECT_NE(angle_and_offset(1, 2, 3), angle_and_offset(2, 2, 3));
  EXPECT_NE(angle_and_offset(1, 2, 3), angle_and_offset(1, 3, 3));
  EXPECT_NE(angle_and_offset(1, 2, 3), angle_and_offset(1, 2, 4));
}

TEST(augment, steps_switch_off_one_by_one) {
  AugmentSpec plain = kKitti;
  plain.rotate_probability = plain.flip_probability = plain.colour_probability = 0;
  AugmentSpec reference = kKitti;
  reference.rotate_teacher = false;
  reference.rotate_probability = 1;
  for (int i = 0; i < 50; ++i) {
    const AugmentParams off = draw_augment(plain, kFrame, 1, 0, i), on = draw_augment(reference, kFrame, 1, 0, i);
    EXPECT_EQ(off.image.angle_degrees, 0.0f);
    EXPECT_FALSE(off.image.flip || off.image.colour);
    EXPECT_EQ(off.image.crop_x, on.image.crop_x);
    EXPECT_NE(on.image.angle_degrees, 0.0f);
    EXPECT_EQ(on.teacher.angle_degrees, 0.0f);
    EXPECT_EQ(on.teacher.flip, on.image.flip);
  }
}

TEST(augment, crop_must_fit) {
  const AugmentSpec spec = kKitti;
  EXPECT_THROW(draw_augment(spec, {703, 352}, 1, 0, 0), Error);
  EXPECT_EQ(draw_augment(spec, {704, 352}, 1, 0, 0).image.crop_x, 0);
  EXPECT_EQ(whole_frame()(kFrame, 1, 0, 0).at(0).at(0).crop, kFrame);
}

// Without a crop a frame is taken whole, but for what is over a multiple.
TEST(augment, a_side_of_0_is_the_frames) {
  EXPECT_EQ(draw_augment({}, {641, 479}, 1, 0, 0).crop, (ImageSize{641, 479}));
  const AugmentSpec spec{.crop = {0, 96}, .multiple = 4};
  bool shifted = false;
  for (int i = 0; i < 20; ++i) {
    const AugmentParams params = draw_augment(spec, {643, 479}, 1, 0, i);
    EXPECT_EQ(params.crop, (ImageSize{640, 96}));
    EXPECT_LE(params.image.crop_x, 3);
    shifted = shifted || params.image.crop_x > 0;
  }
  EXPECT_TRUE(shifted);
  EXPECT_THROW(draw_augment({.multiple = 32}, {643, 31}, 1, 0, 0), Error);
}

}  // namespace
}  // namespace depthstill
