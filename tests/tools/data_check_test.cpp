#include "tools/data_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "engine/eval/benchmarks.h"
#include "tests/data/small_set.h"

namespace depthstill {
namespace {

using namespace testing_files;

struct Outcome {
  int status;
  std::string text;
  bool says(const std::string& words) const { return text.find(words) != std::string::npos; }
};

Outcome run(const DatasetSpec& train, const DatasetSpec* validation = nullptr, const CheckOptions& options = {}) {
  std::ostringstream out;
  const int status = check_data(train, validation, options, out);
  return {status, out.str()};
}

TEST(check_data, a_good_set) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 5);
  const Outcome outcome = run(spec, &spec);
  EXPECT_EQ(outcome.status, 0) << outcome.text;
  EXPECT_TRUE(outcome.says("images         5 readable: 24x16 (5)")) << outcome.text;
  EXPECT_TRUE(outcome.says("ground truth   5 maps, 0.25 to 16.75 m, 99.7 % of pixels")) << outcome.text;
  EXPECT_TRUE(outcome.says("teacher        5 maps")) << outcome.text;
  EXPECT_TRUE(outcome.says("note: 5 images are in both")) << outcome.text;
  EXPECT_TRUE(outcome.says("training would run")) << outcome.text;
}

TEST(check_data, every_problem_with_its_line) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 7);
  std::filesystem::remove(folder / "images/0.png");
  write_file(folder / "depth/1.png", std::string_view("no picture"));
  write_map(folder / "teacher/images_2.png", numbered_depth(7, 7, 0), {80.0 / 65535});
  std::filesystem::remove(folder / "teacher/images_2.png.tmp");
  write_png(folder / "depth/3.png", Image16{24, 16, std::vector<uint16_t>(24 * 16)});
  std::filesystem::remove(folder / "depth/4.png");
  std::filesystem::remove(folder / "teacher/images_4.png");
  const Outcome outcome = run(spec);
  EXPECT_EQ(outcome.status, 1);
  for (const char* words :
       {"list.txt:1: ", "images/0.png: expected a readable file", "list.txt:2: ", "depth/1.png: expected a PNG or JPEG",
        "list.txt:3: ", "found 7x7", "list.txt:4: ", "expected depths between 0.001 and 80 m, found none",
        "depth/4.png: expected a readable", "teacher/images_4.png: expected a readable", "problems       6",
        "training would fail: 6 problems"}) {
    EXPECT_TRUE(outcome.says(words)) << words << " not in\n" << outcome.text;
  }
  EXPECT_FALSE(outcome.says("list.txt:6"));
  CheckOptions options;
  options.max_problems_shown = 2;
  EXPECT_TRUE(run(spec, nullptr, options).says("... and 4 more"));
}

TEST(check_data, the_frame_that_the_validation_needs) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 2);
  CheckOptions options;
  options.protocol = make_protocol("kitti");
  EXPECT_EQ(run(spec, nullptr, options).status, 0);  // training images need no such frame
  const Outcome outcome = run(spec, &spec, options);
  EXPECT_TRUE(outcome.says("list.txt:1: protocol: the KITTI frame needs at least 352x1216")) << outcome.text;
  EXPECT_TRUE(outcome.says("training would fail: 2 problems")) << outcome.text;
  DatasetSpec large = write_small_set(folder, 1, 1216, 352);
  large.resize = ImageSize{24, 16};  // the evaluation takes images as they are stored
  EXPECT_EQ(run(large, &large, options).status, 0);
}

TEST(check_data, list_crop_and_scale) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 2);
  CheckOptions options;
  options.crop = ImageSize{25, 16};
  EXPECT_TRUE(run(spec, nullptr, options).says("list.txt:1: expected a sample of at least the training crop's 25x16"));
  EXPECT_EQ(run(spec, nullptr, options).status, 1);
  DatasetSpec wrong_unit = spec;
  wrong_unit.teacher->format.metres_per_unit = 1.0 / 256;
  EXPECT_TRUE(run(wrong_unit).says("check the stated depth scales")) << run(wrong_unit).text;
  EXPECT_FALSE(run(spec).says("check the stated depth scales"));
  write_file(folder / "list.txt", std::string_view("images/0.png depth/0.png 5\nimages/1.png depth/1.png\n"));
  EXPECT_TRUE(run(spec).says("list.txt:2: expected 3 columns (image depth focal), found 2"));
  EXPECT_EQ(run(spec).status, 1);
}

TEST(check_data, real_sets) {
  const auto kitti = find_data_set("kitti");
  if (!kitti) GTEST_SKIP() << "skipped: no kitti";
  DatasetSpec train = dataset_spec(find_benchmark("kitti"), *kitti, "object_train.txt"),
              validation = dataset_spec(find_benchmark("kitti"), *kitti, "eigen_test_drive0052.txt");
  train.teacher = TeacherSpec{"teacher_lidar_dense"};
  validation.teacher = TeacherSpec{"teacher_lidar_dense_val"};
  CheckOptions options;
  options.crop = ImageSize{704, 352};
  const Outcome outcome = run(train, &validation, options);
  EXPECT_EQ(outcome.status, 0) << outcome.text;
  EXPECT_TRUE(outcome.says("1224x370 (2), 1238x374 (2), 1242x375 (21)")) << outcome.text;
}

}  // namespace
}  // namespace depthstill
