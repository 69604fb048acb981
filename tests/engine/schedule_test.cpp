#include "engine/schedule.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

// torch.optim.lr_scheduler.OneCycleLR of PyTorch 2.15, max_lr 1e-3, pct_start 0.3, div_factor 25, final_div_factor 100.
TEST(Schedule, OneCycleMatchesPyTorch) {
  struct Row {
    int64_t updates, update;
    double lr;
  };
  constexpr Row kRows[] = {
      {100, 0, 4e-05},
      {100, 1, 4.281378056590743e-05},
      {100, 5, 0.0001087085554395572},
      {100, 28, 0.0009971862194340926},
      {100, 29, 0.001},
      {100, 30, 0.0009994967346573492},
      {100, 50, 0.0007939750690957781},
      {100, 98, 9.032653426509683e-07},
      {100, 99, 4e-07},
      {17352, 1, 4.0000087445257087e-05},
      {17352, 5, 4.0002186129835205e-05},
      {17352, 5203, 0.0009999997761401523},
      {17352, 5204, 0.0009999999685197068},
      {17352, 5205, 0.000999999997325203},
      {17352, 8676, 0.0008117191250058093},
      {17352, 17350, 4.0001671748110223e-07},
      {17352, 17351, 4e-07},
  };
  const Schedule schedule;
  for (const Row& row : kRows) {
    EXPECT_NEAR(schedule.at(row.update, row.updates), row.lr, 1e-12 + 1e-9 * row.lr)
        << row.updates << " " << row.update;
  }
}

TEST(Schedule, OneCycleOfFewUpdatesStaysInRange) {
  const Schedule schedule;
  for (int64_t n = 1; n <= 12; ++n) {
    for (int64_t k = 0; k < n; ++k) {
      const double lr = schedule.at(k, n);
      EXPECT_TRUE(lr >= 4e-7 - 1e-15 && lr <= 1e-3 + 1e-15) << k << " of " << n << ": " << lr;
    }
    EXPECT_NEAR(schedule.at(n - 1, n), 4e-7, 1e-12) << n;
  }
}

// The expected values were computed by hand from the formulas.
TEST(Schedule, PolynomialWithWarmUp) {
  Schedule schedule;
  schedule.kind = Schedule::Kind::kPolynomial;
  schedule.lr = 1e-2;
  schedule.min_lr = 1e-3;
  schedule.power = 2.0;
  EXPECT_NEAR(schedule.at(0, 10), 1e-2, 1e-15);
  EXPECT_NEAR(schedule.at(5, 10), 1e-3 + 9e-3 * 0.25, 1e-15);
  EXPECT_NEAR(schedule.at(9, 10), 1e-3 + 9e-3 * 0.01, 1e-15);
  schedule.warmup_updates = 4;
  schedule.warmup_ratio = 0.2;
  EXPECT_NEAR(schedule.at(0, 10), 1e-2 * 0.2, 1e-15);
  EXPECT_NEAR(schedule.at(2, 10), (1e-3 + 9e-3 * 0.64) * 0.6, 1e-15);
  EXPECT_NEAR(schedule.at(4, 10), 1e-3 + 9e-3 * 0.36, 1e-15);
}

TEST(Schedule, ConstantWithWarmUp) {
  Schedule schedule;
  schedule.kind = Schedule::Kind::kConstant;
  schedule.warmup_updates = 2;
  EXPECT_NEAR(schedule.at(1, 10), 1e-3 * (1 - 0.5 * 0.9), 1e-15);
  EXPECT_EQ(schedule.at(2, 10), 1e-3);
  EXPECT_EQ(schedule.at(9, 10), 1e-3);
}

TEST(Schedule, NamesAndLimits) {
  EXPECT_EQ(parse_schedule_kind("one_cycle"), Schedule::Kind::kOneCycle);
  EXPECT_EQ(parse_schedule_kind("polynomial"), Schedule::Kind::kPolynomial);
  EXPECT_EQ(parse_schedule_kind("constant"), Schedule::Kind::kConstant);
  EXPECT_THROW(parse_schedule_kind("cosine"), Error);
  EXPECT_THROW(Schedule().at(10, 10), Error);
}

}  // namespace
}  // namespace depthstill
