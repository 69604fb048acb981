#include "engine/eval/protocol.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "engine/eval/score.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

int64_t count(const std::vector<uint8_t>& valid) { return std::accumulate(valid.begin(), valid.end(), int64_t{0}); }

TEST(Protocol, KittiFrameIsTheBottomCentre) {
  const struct {
    ImageSize size;
    Rect expected;
  } cases[] = {{{1242, 375}, {13, 23, 1216, 352}},
               {{1224, 370}, {4, 18, 1216, 352}},
               {{1238, 374}, {11, 22, 1216, 352}},
               {{1241, 376}, {12, 24, 1216, 352}},  // odd rest: left is rounded down
               {{1216, 352}, {0, 0, 1216, 352}}};
  for (const auto& c : cases) EXPECT_EQ(frame_rect(make_protocol("kitti"), c.size), c.expected);
  EXPECT_THROW(frame_rect(make_protocol("kitti"), {1242, 351}), Error);
  EXPECT_EQ(frame_rect(make_protocol("plain"), {5, 7}), (Rect{0, 0, 5, 7}));
}

// Rows [top, bottom), columns [left, right).
Rect rect_of(int top, int bottom, int left, int right) { return {left, top, right - left, bottom - top}; }

TEST(Protocol, CropsAreThoseOfTheReference) {
  const ImageSize frame{1216, 352};
  Protocol kitti = make_protocol("kitti");
  EXPECT_EQ(eval_rect(kitti, frame), rect_of(143, 349, 43, 1172));
  // The published fractions of the frame, truncated.
  EXPECT_EQ(static_cast<int>(0.40810811 * 352), 143);
  EXPECT_EQ(static_cast<int>(0.99189189 * 352), 349);
  EXPECT_EQ(static_cast<int>(0.03594771 * 1216), 43);
  EXPECT_EQ(static_cast<int>(0.96405229 * 1216), 1172);
  kitti.box = find_box(find_benchmark("kitti"), "eigen");
  EXPECT_EQ(eval_rect(kitti, frame), rect_of(117, 321, 43, 1172));
  kitti.box = find_box(find_benchmark("kitti"), "none");
  EXPECT_EQ(eval_rect(kitti, frame), rect_of(0, 352, 0, 1216));
  EXPECT_EQ(eval_rect(make_protocol("nyu"), {640, 480}), rect_of(45, 471, 41, 601));
  EXPECT_EQ(eval_rect(against_teacher(make_protocol("kitti")), frame), rect_of(110, 352, 0, 1216));
  EXPECT_THROW(eval_rect(make_protocol("nyu"), {320, 240}), Error);
  EXPECT_THROW(make_protocol("cityscapes"), Error);
  EXPECT_THROW(find_box(find_benchmark("nyu"), "garg"), Error);
  EXPECT_THROW(find_box(find_benchmark("plain"), "eigen"), Error);
}

TEST(Protocol, ValidityIsStrict) {
  Protocol plain = make_protocol("plain");
  const std::vector<float> truth = {0, 1e-3f * 0.999f, 0.002f, 79.99f, 80, 81, NAN};
  EXPECT_EQ(valid_mask(plain, {7, 1}, truth), (std::vector<uint8_t>{0, 0, 1, 1, 0, 0, 0}));
  plain.max_depth = 10;
  EXPECT_EQ(count(valid_mask(plain, {7, 1}, truth)), 1);
}

TEST(Protocol, MaskIsCropAndValidity) {
  const Protocol kitti = make_protocol("kitti");
  std::vector<float> truth(352 * 1216, 5.0f);
  EXPECT_EQ(count(valid_mask(kitti, {1216, 352}, truth)), 206 * 1129);
  truth[143 * 1216 + 43] = 0;
  EXPECT_EQ(count(valid_mask(kitti, {1216, 352}, truth)), 206 * 1129 - 1);
  // A teacher has 242 rows of 1216 columns, and the range of training, whose ends count.
  truth[200 * 1216] = 80;
  EXPECT_EQ(count(valid_mask(against_teacher(kitti), {1216, 352}, truth)), 242 * 1216 - 1);
  truth[200 * 1216] = 300;
  EXPECT_EQ(count(valid_mask(against_teacher(kitti), {1216, 352}, truth)), 242 * 1216 - 2);
}

TEST(Protocol, PredictionsAreClampedAndOptionallyScaled) {
  Protocol plain = make_protocol("plain");
  const DepthMap truth{4, 1, {0, 2, 10, 30}};
  const auto scored = [&](std::vector<float> values) {
    DepthMap prediction{4, 1, std::move(values)};
    score(plain, "p", truth, prediction);
    return prediction.values;
  };
  EXPECT_EQ(scored({-1, 0, 20, 90}), (std::vector<float>{1e-3f, 1e-3f, 20, 80}));
  plain.alignment = Alignment::kMedian;
  EXPECT_EQ(scored({-1, 1, 20, 90}), (std::vector<float>{1e-3f, 0.5f, 10, 45}));  // medians 10 and 20
  EXPECT_THROW(scored({-1, 1, NAN, 90}), Error);
}

TEST(Protocol, DescriptionNamesWhatMatters) {
  const std::string kitti = describe(make_protocol("kitti"));
  for (const char* part : {"352x1216", "Garg", "143:349", "43:1172", "80", "no median scaling", "per-image"}) {
    EXPECT_NE(kitti.find(part), std::string::npos) << part << " in " << kitti;
  }
  EXPECT_NE(describe(make_protocol("nyu")).find("Eigen crop rows 45:471, columns 41:601"), std::string::npos);
  EXPECT_NE(describe(against_teacher(make_protocol("kitti"))).find("rows from 110"), std::string::npos);
}

}  // namespace
}  // namespace depthstill
