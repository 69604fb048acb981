#include "tools/data_check.h"

#include <gtest/gtest.h>

#include <algorithm>
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

// A run with batches of one image.
TrainingNeeds needs_of_one(ImageSize crop) {
  TrainingNeeds needs;
  needs.model = "a network";
  needs.crop.crop = crop;
  needs.loading.batch_size = 1;
  return needs;
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
        "depth/4.png: expected a readable", "teacher/images_4.png: expected a readable", "problems       5",
        "notes          1", "training would fail: 5 problems"}) {
    EXPECT_TRUE(outcome.says(words)) << words << " not in\n" << outcome.text;
  }
  EXPECT_FALSE(outcome.says("list.txt:6"));
  CheckOptions options;
  options.max_problems_shown = 2;
  EXPECT_TRUE(run(spec, nullptr, options).says("... and 3 more"));
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
  options.training = needs_of_one({25, 16});
  EXPECT_TRUE(run(spec, nullptr, options).says("list.txt:1: expected a sample of at least the training crop's 25x16"));
  EXPECT_EQ(run(spec, nullptr, options).status, 1);
  for (const char* name : {"teacher/images_0.png", "teacher/images_1.png"}) {  // nothing in them says what they hold
    write_png(folder / name, read_png16(folder / name));
  }
  DatasetSpec wrong_unit = spec;
  wrong_unit.teacher->format.metres_per_unit = 1.0 / 256;
  EXPECT_TRUE(run(wrong_unit).says("check the stated depth scales")) << run(wrong_unit).text;
  EXPECT_EQ(run(wrong_unit).status, 1);
  EXPECT_FALSE(run(spec).says("check the stated depth scales"));
}

// Bad lines hide neither each other nor the images of the good ones.
TEST(check_data, bad_lines_and_bad_files) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 4);
  std::filesystem::remove(folder / "images/3.png");
  write_file(folder / "list.txt", std::string_view("images/0.png depth/0.png\nimages/1.png\nimages/2.png ../d.png\n"
                                                   "images/3.png depth/3.png five\nimages/3.png depth/3.png\n"));
  const Outcome outcome = run(spec);
  EXPECT_EQ(outcome.status, 1);
  for (const char* words :
       {"list.txt:2: expected 3 columns", "list.txt:3: expected a path below", "list.txt:4: expected a focal length",
        "list.txt:5: ", "images/3.png: expected a readable file", "samples        2 (", "problems       4",
        "training would fail: 4 problems"}) {
    EXPECT_TRUE(outcome.says(words)) << words << " not in\n" << outcome.text;
  }
  EXPECT_FALSE(outcome.says("list.txt:1"));
  std::string list = "images/0.png depth/0.png\n";
  for (int i = 0; i < 30; ++i) list += "one\n";
  write_file(folder / "list.txt", list);
  EXPECT_TRUE(run(spec).says("list.txt:21: expected"));
  EXPECT_TRUE(run(spec).says("... and 10 more"));
  CheckOptions options;
  options.max_problems_shown = 2;
  EXPECT_TRUE(run(spec, nullptr, options).says("... and 28 more"));
}

// A frame of a set with structure: a floor that rises to the horizon, and boxes that no two frames share.
DepthMap scene(int number) {
  DepthMap depth{48, 32, {}};
  for (int y = 0; y < depth.height; ++y) {
    for (int x = 0; x < depth.width; ++x) {
      float metres = y < 12 ? 40.0f : 60.0f / static_cast<float>(y - 10);
      for (int box = 0; box < 4; ++box) {
        const int left = (17 * number + 13 * box) % 40, top = (11 * number + 7 * box) % 16;
        if (x >= left && x < left + 10 && y >= top && y < top + 12)
          metres = 3.0f + static_cast<float>(3 * box + number % 5);
      }
      depth.values.push_back(metres);
    }
  }
  return depth;
}

DepthMap turned_over(const DepthMap& map) {
  DepthMap turned = map;
  const int64_t width = map.width;
  for (int64_t y = 0; y < map.height; ++y) {
    std::copy_n(map.values.begin() + (map.height - 1 - y) * width, width, turned.values.begin() + y * width);
  }
  return turned;
}

// A teacher is off by a few percent, differently in each frame.
DepthMap taught(const DepthMap& truth, int number) {
  DepthMap teacher = truth;
  for (size_t i = 0; i < teacher.values.size(); ++i) {
    teacher.values[i] *=
        1.0f + 0.02f * static_cast<float>(number % 3) + 0.03f * std::sin(0.37f * static_cast<float>(i));
  }
  return teacher;
}

DatasetSpec write_scenes(const TemporaryFolder& folder, int count, const char* teacher_extension = ".npy") {
  DatasetSpec spec = write_small_set(folder, count, 48, 32);
  spec.teacher->extension = teacher_extension;
  for (int i = 0; i < count; ++i) {
    write_map(folder / concat_text("depth/", i, ".png"), scene(i), {1.0 / 256});
    write_map(folder / concat_text("teacher/images_", i, teacher_extension), taught(scene(i), i), {80.0 / 65535});
  }
  return spec;
}

TEST(check_data, frames_that_do_not_belong_together_are_noted) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_scenes(folder, 12);
  EXPECT_FALSE(run(spec).says("note")) << run(spec).text;
  DepthMap millimetres = scene(2);
  for (float& metres : millimetres.values) metres *= 1000.0f / 256;
  write_map(folder / "depth/2.png", millimetres, {1.0 / 256});
  write_map(folder / "depth/4.png", turned_over(scene(4)), {1.0 / 256});
  write_map(folder / "depth/6.png", scene(7), {1.0 / 256});
  write_map(folder / "teacher/images_9.npy", taught(scene(3), 3), {});
  const Outcome outcome = run(spec);
  EXPECT_EQ(outcome.status, 0) << outcome.text;
  EXPECT_TRUE(outcome.says("notes          4\n")) << outcome.text;
  for (const char* words :
       {"list.txt:3: ", "another unit? teacher/truth is 0.2", "list.txt:5: ", "upside down?",
        "list.txt:7: ", "depth/6.png", "maps of different frames?", "list.txt:10: ", "teacher/images_9.npy"}) {
    EXPECT_TRUE(outcome.says(words)) << words << " not in\n" << outcome.text;
  }
  EXPECT_EQ(compare_with_truth(Dataset(spec)).notes.size(), 4u);
}

TEST(check_data, a_list_whose_maps_do_not_agree_is_noted) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_scenes(folder, 4);
  for (int i = 0; i < 4; ++i) {
    DepthMap inverse = scene(i);
    for (float& metres : inverse.values) metres = 60 / metres;
    write_map(folder / concat_text("teacher/images_", i, ".npy"), inverse, {});
  }
  EXPECT_TRUE(run(spec).says("note: list.txt: the correlation of teacher and ground truth is -")) << run(spec).text;
  EXPECT_TRUE(run(spec).says("inverse depth?")) << run(spec).text;
}

TEST(check_data, maps_that_look_like_inverse_depth_are_noted_without_ground_truth) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_scenes(folder, 4);
  spec.skip_without_depth = false;
  std::string list;
  for (int i = 0; i < 4; ++i) list += concat_text("images/", i, ".png None\n");
  write_file(folder / "list.txt", list);
  EXPECT_FALSE(run(spec).says("note")) << run(spec).text;
  for (int i = 0; i < 4; ++i) {
    DepthMap inverse = scene(i);
    for (float& metres : inverse.values) metres = 60 / metres;
    write_map(folder / concat_text("teacher/images_", i, ".npy"), inverse, {});
  }
  EXPECT_TRUE(run(spec).says("note: list.txt: 4 of 4 of the teacher's maps grow towards the lower edge"))
      << run(spec).text;
  EXPECT_EQ(compare_with_truth(Dataset(spec)).notes.size(), 1u);
}

TEST(check_data, repeated_lines_are_problems) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 3);
  write_file(folder / "list.txt", std::string_view("images/0.png depth/0.png 5\nimages/1.png depth/1.png 5\n"
                                                   "images/0.png depth/0.png 5\nimages/0.png depth/2.png 5\n"));
  const Outcome outcome = run(spec);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_TRUE(outcome.says("list.txt:3: expected each line once, found images/0.png as in line 1")) << outcome.text;
  EXPECT_TRUE(outcome.says("problems       1\n")) << outcome.text;
}

TEST(check_data, a_teacher_in_another_unit_than_ground_truth_is_a_problem) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_scenes(folder, 4);
  EXPECT_TRUE(compare_with_truth(Dataset(spec)).problems.empty());
  const auto write_in_units = [&](float per_metre) {
    for (int i = 0; i < 4; ++i) {
      DepthMap units = taught(scene(i), i);
      for (float& value : units.values) value *= per_metre;
      const int64_t shape[] = {32, 48};
      write_npy(folder / concat_text("teacher/images_", i, ".npy"), shape, units.values);
    }
  };
  write_in_units(65535.0f / 80);  // as version 0.1.0 wrote it
  const auto problem = [&] {
    const std::vector<std::string> problems = compare_with_truth(Dataset(spec)).problems;
    return problems.empty() ? std::string() : problems.front();
  };
  expect_clear(problem(), "list.txt: expected teacher/truth with a median of 0.5 to 2, found 8");
  EXPECT_NE(problem().find("set data.teacher_float_units = 819.1875"), std::string::npos) << problem();
  EXPECT_EQ(run(spec).status, 1);
  EXPECT_TRUE(run(spec).says("data.teacher_float_units = 819.1875"));
  spec.teacher->format.metres_per_float_unit = 80.0 / 65535;
  EXPECT_EQ(problem(), "");
  write_in_units(10);
  spec.teacher->format.metres_per_float_unit = 1e-3;
  EXPECT_NE(problem().find("data.teacher_float_units is not 1000 but about "), std::string::npos) << problem();
}

TEST(check_data, what_a_map_says_of_itself_is_believed) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_scenes(folder, 3);
  spec.teacher->format.metres_per_float_unit = 1e-3;
  spec.depth.metres_per_unit = 1;
  EXPECT_EQ(run(spec).status, 0) << run(spec).text;
  DepthMap inverse = scene(1);
  for (float& value : inverse.values) value = 1 / value;
  inverse.kind = kRelativeInverseDepth;
  write_map(folder / "teacher/images_1.npy", inverse, {});
  EXPECT_TRUE(run(spec).says("list.txt:2: " + (folder / "teacher/images_1.npy") +
                             ": expected depth in metres, found inverse depth up to scale and shift"))
      << run(spec).text;
  EXPECT_EQ(run(spec).status, 1);
}

// What no network can predict is left out, and said.
TEST(check_data, pixels_beyond_the_range_are_counted) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 2);
  spec.teacher.reset();
  spec.depth.metres_per_unit = 0.01;
  std::vector<uint16_t> depth(24 * 16, 500);
  depth[0] = 0;
  depth[1] = 8000;  // 80 m: the end of the range counts
  depth[2] = depth[3] = 65535;
  for (const char* name : {"depth/0.png", "depth/1.png"}) write_png(folder / name, Image16{24, 16, depth});
  const Outcome outcome = run(spec);
  EXPECT_TRUE(outcome.says("2 maps, 5 to 655.3 m, 99.2 % of pixels between 0.001 and 80 m, 4 pixels beyond left out"))
      << outcome.text;
  spec.min_depth = 5.5;
  EXPECT_TRUE(run(spec).says("760 pixels before left out")) << run(spec).text;
}

// A map without anything to learn from is a note, a list without any a problem: `train` says and does the same.
TEST(check_data, empty_maps) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 4);
  const auto empty = [&](int number) {
    write_png(folder / concat_text("teacher/images_", number, ".png"), Image16{24, 16, std::vector<uint16_t>(24 * 16)});
  };
  CheckOptions options;
  options.training = needs_of_one({24, 16});
  empty(1);
  const Outcome one = run(spec, nullptr, options);
  EXPECT_EQ(one.status, 0) << one.text;
  EXPECT_TRUE(one.says("list.txt:2: ") && one.says("images_1.png: expected depths between 0.001 and 80 m, found none"))
      << one.text;
  for (const int number : {0, 2, 3}) empty(number);
  EXPECT_EQ(run(spec, nullptr, options).status, 1);
  EXPECT_TRUE(run(spec, nullptr, options).says("list.txt: nothing to learn from in any sample")) << one.text;
  options.training->target = DepthTarget::kTruth;
  EXPECT_EQ(run(spec, nullptr, options).status, 0) << "nobody learns from the teacher";
  options.training->top_rows = 15;  // numbered_depth() is 0 in no whole row
  EXPECT_EQ(run(spec, nullptr, options).status, 0);
  DatasetSpec far = spec;
  far.min_depth = 70;
  EXPECT_TRUE(run(far, nullptr, options).says("between 70 and 80 m from row 15 on (loss.top_rows), found none"));
  EXPECT_EQ(run(far, nullptr, options).status, 1);
  CheckOptions scored;
  scored.protocol = make_protocol("plain");
  scored.protocol->min_depth = 70;
  const Outcome unscored = run(spec, &spec, scored);
  EXPECT_TRUE(unscored.says("expected ground truth that the protocol counts in at least one image")) << unscored.text;
  EXPECT_THROW(check_scored(Dataset(spec), *scored.protocol), Error);
  EXPECT_NO_THROW(check_scored(Dataset(spec), make_protocol("plain")));
}

// A run needs the teacher of its own list only; that of the scored list is shown in pictures.
TEST(check_data, a_scored_list_needs_no_teacher) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 2);
  DatasetSpec scored = spec;
  scored.teacher->folder = folder / "nowhere";
  CheckOptions options;
  options.protocol = make_protocol("plain");
  options.scored = "test";
  const Outcome outcome = run(spec, &scored, options);
  EXPECT_EQ(outcome.status, 0) << outcome.text;
  EXPECT_TRUE(outcome.says("test: ")) << outcome.text;
  EXPECT_TRUE(outcome.says("note: " + (folder / "list.txt:1: "))) << outcome.text;
  EXPECT_EQ(run(scored, &spec, options).status, 1);
}

TEST(check_data, what_would_stop_a_run) {
  const TemporaryFolder folder;
  const DatasetSpec spec = write_small_set(folder, 3);
  const auto problem = [&](void (*change)(TrainingNeeds&)) {
    CheckOptions options;
    options.training = needs_of_one({24, 16});
    options.training->crop.multiple = 4;
    change(*options.training);
    const std::vector<std::string> problems = training_problems(Dataset(spec), *options.training);
    const Outcome outcome = run(spec, nullptr, options);
    EXPECT_EQ(outcome.status, problems.empty() ? 0 : 1) << outcome.text;
    const std::string first = problems.empty() ? "" : problems.front();
    EXPECT_TRUE(outcome.says(first)) << outcome.text;
    return first;
  };
  EXPECT_EQ(problem([](TrainingNeeds&) {}), "");
  EXPECT_EQ(problem([](TrainingNeeds& needs) {
              needs.crop.crop = {24, 15};
            }),
            "augment.crop_height: expected a multiple of 4 for a network, found 15");
  EXPECT_EQ(problem([](TrainingNeeds& needs) {
              needs.crop.crop = {22, 16};
            }),
            "augment.crop_width: expected a multiple of 4 for a network, found 22");
  EXPECT_EQ(problem([](TrainingNeeds& needs) { needs.top_rows = 16; }),
            "loss.top_rows: expected fewer than the 16 rows of a training crop, found 16");
  EXPECT_EQ(
      problem([](TrainingNeeds& needs) { needs.loading.batch_size = 4; }),
      "train.batch_size: loader: expected at least one batch of 4, found 3 samples; train.drop_last = false takes "
      "smaller ones");
  EXPECT_EQ(problem([](TrainingNeeds& needs) { needs.loading.batch_size = 4, needs.loading.drop_last = false; }), "");
  expect_clear(problem([](TrainingNeeds& needs) { needs.weights = "nowhere.safetensors"; }),
               "nowhere.safetensors: expected weights, found no such file");
}

// Whole frames have the sizes that they have.
TEST(check_data, whole_frames_that_do_not_fit) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 2, 24, 16);
  write_png(folder / "images/1.png", numbered_image(27, 16, 1), 1);
  write_map(folder / "depth/1.png", numbered_depth(27, 16, 1), {1.0 / 256});
  write_map(folder / "teacher/images_1.png", numbered_depth(27, 16, 2), {80.0 / 65535});
  CheckOptions options;
  options.training = needs_of_one({0, 0});
  options.training->crop.multiple = 4;
  EXPECT_EQ(run(spec, nullptr, options).status, 0) << "cut to 24 columns: " << run(spec, nullptr, options).text;
  options.training->augment = false;
  EXPECT_TRUE(run(spec, nullptr, options)
                  .says("list.txt:2: expected sides that are multiples of 4 for a network, found 27x16"));
  options.training->crop.multiple = 1;
  EXPECT_EQ(run(spec, nullptr, options).status, 0);
  options.training->loading.batch_size = 2;
  EXPECT_TRUE(run(spec, nullptr, options).says("list.txt:2: expected samples of one size, 24x16 as the first, found"));
  options.training->top_rows = 16;
  EXPECT_TRUE(run(spec, nullptr, options).says("list.txt:1: loss.top_rows: expected fewer than the 16 rows"));
}

TEST(check_data, lines_without_the_truth_that_is_learnt_from) {
  const TemporaryFolder folder;
  DatasetSpec spec = write_small_set(folder, 2);
  write_file(folder / "list.txt", std::string_view("images/0.png depth/0.png\nimages/1.png None\n"));
  spec.skip_without_depth = false;
  CheckOptions options;
  options.training = needs_of_one({24, 16});
  EXPECT_EQ(run(spec, nullptr, options).status, 0);
  options.training->target = DepthTarget::kTruth;
  EXPECT_TRUE(run(spec, nullptr, options).says("list.txt:2: expected ground truth to learn from, found None"));
  EXPECT_EQ(run(spec, nullptr, options).status, 1);
}

TEST(check_data, real_sets) {
  const auto kitti = find_data_set("kitti");
  if (!kitti) GTEST_SKIP() << "skipped: no kitti";
  DatasetSpec train = dataset_spec(find_benchmark("kitti"), *kitti, "object_train.txt"),
              validation = dataset_spec(find_benchmark("kitti"), *kitti, "eigen_test_drive0052.txt");
  train.teacher = TeacherSpec{"teacher_lidar_dense"};
  validation.teacher = TeacherSpec{"teacher_lidar_dense_val"};
  CheckOptions options;
  options.training = needs_of_one({704, 352});
  const Outcome outcome = run(train, &validation, options);
  EXPECT_EQ(outcome.status, 0) << outcome.text;
  EXPECT_FALSE(outcome.says("note")) << outcome.text;
  EXPECT_TRUE(outcome.says("1224x370 (2), 1238x374 (2), 1242x375 (21)")) << outcome.text;
}

}  // namespace
}  // namespace depthstill
