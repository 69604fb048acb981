// Teachers that run beside the student: their labels, alone and among stored ones, and runs that go on with them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/core/library_options.h"
#include "tests/tools/region_runs.h"
#include "tests/tools/runs.h"
#include "tests/with_options.h"
#include "tools/bench/profile.h"
#include "tools/report/run_log.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::error_of;
using testing_files::TemporaryFolder;
using namespace testing_runs;

// A network and a folder of stored labels of regions, which is written; patches for L_lg.
Recipe two_teachers(const TemporaryFolder& folder, std::vector<double> shares) {
  Recipe recipe = recipe_of(folder);
  recipe.distill.lambda_lg = 0.5f;
  recipe.regions.spec.patches = 2;
  recipe.regions.unstated = Quantity::kInverseDepth;
  recipe.regions.teachers = {folder / "online.safetensors", "regions"};
  recipe.regions.shares = std::move(shares);
  recipe.label_batch = 3;
  write_teacher(folder / "online.safetensors", 6);
  const auto stored = write_teacher(folder / "stored.safetensors", 7);
  teach_all(recipe, 1, *stored, folder / "stored.safetensors");
  return recipe;
}

// All batches of a run as a step reads them, their labels made where a teacher is online.
std::vector<BatchTensors> labelled_batches(const Recipe& recipe) {
  const auto data = std::make_shared<const Dataset>(dataset_spec(recipe, "train"));
  LoaderOptions loading = loader_options(recipe);
  loading.regions = region_loading(recipe, *data);
  const LabelNetworks networks = label_networks(recipe, Device::kCpu);
  Loader loader(data, loading);
  std::vector<BatchTensors> batches;
  while (const auto batch = loader.next()) {
    batches.push_back(to_tensors(*batch, DType::kFloat, Device::kCpu).at(0));
    if (networks.teachers) networks.teachers->label(batches.back(), batch->teacher);
  }
  return batches;
}

void expect_same_maps(const Tensor& found, const Tensor& expected) {
  ASSERT_TRUE(found.shape() == expected.shape()) << found.shape() << expected.shape();
  const std::vector<float> a = to_vector<float>(found), b = to_vector<float>(expected);
  const float scale = *std::max_element(b.begin(), b.end());
  for (size_t i = 0; i < b.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-3f * scale) << i;
}

// Within half precision, also where student and teacher see different sizes and where the teacher says metres.
TEST(OnlineTeacher, SaysWhatTeachStores) {
  for (const auto& [size, head] : {std::pair(32, Head::kRelative), {48, Head::kRelative}, {24, Head::kRegression}}) {
    SCOPED_TRACE(size);
    const TemporaryFolder folder;
    Recipe stored = recipe_of(folder);
    stored.distill.lambda_lg = 0.5f;
    stored.regions.spec.patches = 3;
    stored.regions.size = size;
    stored.regions.unstated = Quantity::kInverseDepth;
    stored.regions.teachers = {"regions"};
    Recipe online = stored;
    online.regions.teachers = {folder / "teacher.safetensors"};
    online.label_batch = 4;  // of six patches
    const auto teacher = write_teacher(folder / "teacher.safetensors", 6, head);
    teach_all(stored, 0, *teacher, folder / "teacher.safetensors");
    const std::vector<BatchTensors> a = labelled_batches(online), b = labelled_batches(stored);
    ASSERT_EQ(a.size(), 4u);
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].region.defined(), size != 32);
      ASSERT_TRUE(a[i].teacher.shape() == Shape({2, size, size}));
      expect_same_maps(a[i].teacher, b[i].teacher);
      expect_same_maps(a[i].patches, b[i].patches);
      EXPECT_EQ(to_vector<int32_t>(a[i].windows), to_vector<int32_t>(b[i].windows));
    }
    if (size != 32) continue;
    train(online, into(folder / "online"));
    train(stored, into(folder / "stored"));
    const auto found = read_run_log(folder / "online/metrics.jsonl").steps.at(0).losses,
               expected = read_run_log(folder / "stored/metrics.jsonl").steps.at(0).losses;
    ASSERT_EQ(found.size(), 4u);
    for (size_t k = 0; k < 4; ++k) EXPECT_NEAR(found[k].second, expected[k].second, 1e-3 * expected[k].second);
  }
}

// Depth Anything 3 gives depth and finds a sky, of which both make inverse depth and 0.
TEST(OnlineTeacher, WithASkySaysWhatTeachStores) {
  const TemporaryFolder folder;
  Recipe stored = recipe_of(folder);
  stored.regions.spec.patch = stored.regions.size = 42;
  stored.regions.spec.least = 49;
  stored.regions.unstated = Quantity::kInverseDepth;
  stored.regions.teachers = {"regions"};
  Recipe online = stored;
  online.regions.teachers = {folder / "teacher.safetensors"};
  const auto teacher = make_model("da3mono_s", {.head = Head::kRelativeDepth});
  teacher->initialize(6);
  teacher->eval();
  for (const StateEntry& entry : teacher->state()) {  // else all is sky
    if (entry.name.ends_with("sky_output_conv2.2.bias")) *entry.tensor->data<float>() = -0.85f;
  }
  save_model(folder / "teacher.safetensors", *teacher);
  teach_all(stored, 0, *teacher, folder / "teacher.safetensors");
  const std::vector<BatchTensors> a = labelled_batches(online), b = labelled_batches(stored);
  size_t of_sky = 0, others = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    expect_same_maps(a[i].teacher, b[i].teacher);
    for (const float label : to_vector<float>(a[i].teacher)) (label == 0 ? of_sky : others) += 1;
  }
  EXPECT_GT(of_sky, 0u);
  EXPECT_GT(others, 0u);
}

// 24 steps, 0.7 of them of the network, interrupted three times at once; and once with the weights in another place.
TEST(OnlineTeacher, AndAStoredOneGoOnFromAnyStepBitForBit) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.train.epochs = 12;
  recipe.regions.teachers = {folder / "online.safetensors", "teacher"};
  recipe.regions.shares = {0.7, 0.3};
  write_teacher(folder / "online.safetensors", 6);
  train(recipe, into(folder / "whole"));
  std::vector<double> drawn;
  for (const StepRecord& step : read_run_log(folder / "whole/metrics.jsonl").steps) {
    ASSERT_EQ(step.figures.back().first, "teacher");
    drawn.push_back(step.figures.back().second);
  }
  ASSERT_EQ(drawn.size(), 24u);
  const auto online = std::ranges::count(drawn, 0.0);
  EXPECT_GT(online, 12);
  EXPECT_LT(online, 22);

  TrainOptions options = into(folder / "parts");
  for (const int64_t step : {5, 12, 17}) {
    train_until(step, recipe, options);
    options.resume = true;
  }
  fs::rename(folder / "online.safetensors", folder / "moved.safetensors");
  recipe.regions.teachers[0] = folder / "moved.safetensors";
  train(recipe, options);
  expect_same_files(folder / "whole/last.safetensors", folder / "parts/last.safetensors");

  options.out = folder / "other";
  options.resume = false;
  train_until(1, recipe, options);
  options.resume = true;
  recipe.label_batch = 1;
  EXPECT_NE(error_of([&] { train(recipe, options); }).find("distill.label_batch"), std::string::npos);
  recipe.label_batch = 8;
  write_teacher(folder / "moved.safetensors", 8);
  EXPECT_NE(error_of([&] { train(recipe, options); }).find("distill.teachers"), std::string::npos);
}

// With patches, in a graph that does not know whose labels it reads; the emulated device where there is none.
TEST(OnlineTeacher, TheGraphOfAStepIsTheSameForEveryTeacher) {
  if (!built_with_cuda()) enable_emulated_cuda();
  if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  LibraryOptions repeatable = library_options();
  repeatable.deterministic = true;
  const test::WithOptions with(repeatable);
  const TemporaryFolder folder;
  Recipe recipe = two_teachers(folder, {0.5, 0.5});
  recipe.train.epochs = 2;
  recipe.regions.size = 48;  // not the teacher's
  recipe.train.max_steps = 4;
  const auto run = [&](const char* name, bool graph) {
    TrainOptions options = into(folder / name);
    options.device = Device::kCuda;
    options.graph = graph;
    train(recipe, options);
  };
  run("plain", false);
  run("graph", true);
  expect_same_files(folder / "plain/last.safetensors", folder / "graph/last.safetensors");
}

// Where a network says the same everywhere, its labels do not count, as those of a file.
TEST(OnlineTeacher, ConstantMapsDoNotCountAndAreNamed) {
  const TemporaryFolder folder;
  Recipe recipe = two_teachers(folder, {0.3, 0.7});
  const auto constant = make_model("mobilenet_unet_small", {.head = Head::kRelative});  // all of its weights are 0
  save_model(folder / "online.safetensors", *constant);
  testing::internal::CaptureStderr();
  train(recipe, into(folder / "run"));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("2 of 2 labels teach nothing: a teacher's map of images/"), std::string::npos) << said;
  EXPECT_NE(said.find(") is constant, and others"), std::string::npos) << said;
  EXPECT_NE(said.find("labels teach nothing, such as a teacher's map of images/"), std::string::npos) << said;
  const auto steps = read_run_log(folder / "run/metrics.jsonl").steps;
  int of_stored = 0;
  for (const StepRecord& step : steps) {
    const bool stored = step.figures.back().second == 1;
    of_stored += stored;
    EXPECT_EQ(step.losses[0].second > 0, stored) << "nothing counted, so that the loss is 0";
  }
  EXPECT_GT(of_stored, 0);
  EXPECT_LT(of_stored, 4);

  recipe.regions.teachers = {folder / "online.safetensors"};
  recipe.regions.shares = {};
  EXPECT_EQ(error_of([&] {
              train(recipe, into(folder / "nothing"));
            }).rfind("epoch 1: expected a label that teaches something, found 4 that are constant", 0),
            0u);
}

TEST(OnlineTeacher, IsLookedAtBeforeAnythingIsWritten) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.regions.unstated = Quantity::kInverseDepth;
  recipe.regions.teachers = {folder / "none.pth"};
  const auto message = [&] { return error_of([&] { train(recipe, into(folder / "run")); }); };
  const auto expect_both = [&](const std::string& expected) {
    EXPECT_EQ(message(), expected);
    const std::string text = checked(recipe).second;
    EXPECT_NE(text.find(expected), std::string::npos) << text;
    EXPECT_FALSE(fs::exists(folder / "run"));
  };
  expect_both("distill.teachers: " + folder / "none.pth" +
              ": expected weights, found no such file; a relative path starts from the current folder");
  write_teacher(folder / "teacher.safetensors", 6);
  recipe.regions.teachers = {folder / "teacher.safetensors"};
  EXPECT_EQ(checked(recipe).first, 0) << checked(recipe).second;
  recipe.regions.spec.patch = 33;
  expect_both("distill.patch: expected a multiple of 2 for the teacher " + folder / "teacher.safetensors" +
              ", a mobilenet_unet_small, found 33");
}

// What takes time and memory is told apart.
TEST(OnlineTeacher, AProfileHasItsPart) {
  const TemporaryFolder folder;
  const Recipe recipe = two_teachers(folder, {1.0, 1.0});
  const Profile profile = profile_training(recipe, {.first_step = 1, .last_step = 4});
  std::vector<std::string> names;
  double sum = 0;
  for (const StepPart& part : profile.table.parts()) {
    names.push_back(part.name);
    EXPECT_GT(part.ms, 0);
    EXPECT_EQ(part.steps < 4, part.name == "teacher") << part.steps;
    sum += part.ms * part.steps / 4;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"input", "teacher", "student", "losses", "update"}));
  EXPECT_GT(sum, 0);
  EXPECT_GT(profile.decode_ms, 0);
  EXPECT_NE(parts_text(profile.table).find("of 4 steps, student "), std::string::npos) << parts_text(profile.table);
}

}  // namespace
}  // namespace depthstill
