#include "engine/eval/boundary.h"

#include <gtest/gtest.h>

namespace depthstill {
namespace {

// Depth `near` left of the column, `far` from it on.
DepthMap step_at(int column, float near = 1, float far = 2) {
  DepthMap map{12, 130, {}};
  for (int i = 0; i < 12 * 130; ++i) map.values.push_back(i % 12 < column ? near : far);
  return map;
}

TEST(Boundary, AnEdgeAtItsPlaceCountsInOneOfFourDirections) {
  const double one = 2 * 0.25 * 0.25 / 0.5;
  EXPECT_NEAR(boundary_f1(step_at(5), step_at(5)), one, 1e-12);
  EXPECT_NEAR(boundary_f1(step_at(5, 3, 4), step_at(5)), one, 1e-12);  // ratios count, not metres
  EXPECT_EQ(boundary_f1(step_at(6), step_at(5)), 0);
  EXPECT_EQ(boundary_f1(step_at(5, 2, 1), step_at(5)), 0);  // the other way
}

// Of the thresholds 1.05 to 1.25 in ten steps, a ratio of 1.15 exceeds the first five (the fifth is 1.1389).
TEST(Boundary, ThresholdsAreWeightedByThemselves) {
  double passed = 0, all = 0;
  for (int i = 0; i < 10; ++i) {
    const double t = 1.05 + 0.2 * i / 9;
    all += t;
    if (i < 5) passed += t;
  }
  EXPECT_NEAR(boundary_f1(step_at(5, 1, 1.15f), step_at(5)), 0.25 * passed / all, 1e-12);
}

TEST(Boundary, TheRimOfAHoleIsAnEdge) {
  DepthMap truth = step_at(12), prediction = truth;
  EXPECT_EQ(boundary_f1(prediction, truth), 0);
  truth.values[40] = 0;
  prediction.values[40] = 1e-3f;
  EXPECT_NEAR(boundary_f1(prediction, truth), 1, 1e-12);  // an edge in each direction
}

}  // namespace
}  // namespace depthstill
