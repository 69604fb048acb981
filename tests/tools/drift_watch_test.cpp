#include "tools/drift_watch.h"

#include <gtest/gtest.h>

namespace depthstill {
namespace {

StepRecord record_of(int64_t step, double s_student, double t_student = 1.0, double bounded = 0.0) {
  StepRecord record;
  record.step = step;
  record.figures = {{"t_student", t_student}, {"s_student", s_student}, {"s_teacher", 2.0}, {"bounded", bounded}};
  return record;
}

TEST(DriftWatch, WarnsOnceADecade) {
  DriftWatch watch(100);
  EXPECT_FALSE(watch.look(record_of(1, 1e-5))) << "before the reference";
  EXPECT_FALSE(watch.look(record_of(100, 1.0)));
  EXPECT_FALSE(watch.look(record_of(200, 99.0)));
  const auto grown = watch.look(record_of(300, 150.0));
  ASSERT_TRUE(grown);
  EXPECT_EQ(grown->rfind("warning: step 300: the scale of the student's maps has grown by a factor of 150 since", 0),
            0u);
  EXPECT_FALSE(watch.look(record_of(301, 900.0)));
  EXPECT_TRUE(watch.look(record_of(400, 1100.0)));
  EXPECT_FALSE(watch.look(record_of(500, 1200.0)));
  DriftWatch resumed(100);
  resumed.restore(watch.metadata());
  EXPECT_FALSE(resumed.look(record_of(501, 1200.0)));
  EXPECT_TRUE(resumed.look(record_of(502, 2e4)));
}

TEST(DriftWatch, ShrinkingIsDriftToo) {
  DriftWatch watch(100);
  EXPECT_FALSE(watch.look(record_of(120, 1.0)));
  EXPECT_NE(watch.look(record_of(121, 0.001)).value().find("no loss holds it"), std::string::npos);
  DriftWatch anchored(100, true);
  EXPECT_FALSE(anchored.look(record_of(120, 1.0)));
  EXPECT_NE(anchored.look(record_of(121, 0.001)).value().find("a greater distill.anchor"), std::string::npos);
}

TEST(DriftWatch, AStudentThatIsZeroEverywhereEndsTheRun) {
  DriftWatch watch(100);
  for (int i = 0; i < DriftWatch::kDeadSteps - 1; ++i) EXPECT_FALSE(watch.look(record_of(i, 1e-6, 0.0, 1.0)));
  EXPECT_FALSE(watch.look(record_of(60, 1.0))) << "it came back";
  for (int i = 0; i < DriftWatch::kDeadSteps - 1; ++i) EXPECT_FALSE(watch.look(record_of(61 + i, 1e-6, 0.0, 1.0)));
  DriftWatch resumed(100);
  resumed.restore(watch.metadata());
  EXPECT_THROW(watch.look(record_of(110, 1e-6, 0.0, 1.0)), Error);
  EXPECT_THROW(resumed.look(record_of(110, 1e-6, 0.0, 1.0)), Error);
}

TEST(DriftWatch, OtherLossesHaveNoScale) {
  DriftWatch watch(100);
  StepRecord record;
  record.step = 500;
  record.losses = {{"total", 1.0}};
  EXPECT_FALSE(watch.look(record));
}

}  // namespace
}  // namespace depthstill
