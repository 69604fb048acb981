// Whole runs of Distill Any Depth on a few small images: from stored maps to a trained network, and on from any step.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "engine/data/region_teacher.h"
#include "engine/io/npy.h"
#include "engine/io/safetensors.h"
#include "engine/io/text_file.h"
#include "kernels/core/library_options.h"
#include "kernels/preprocess_region.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "tests/tools/region_runs.h"
#include "tests/tools/runs.h"
#include "tests/with_options.h"
#include "tools/data_check.h"
#include "tools/distill_recipe.h"
#include "tools/interrupt.h"
#include "tools/report/run_log.h"
#include "tools/teach_regions.h"
#include "tools/train_run.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::error_of;
using testing_files::TemporaryFolder;
using namespace testing_runs;

TEST(DistillRun, TrainsOnRegionsAndSaysHowItsWeightsAreUsed) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.train.epochs = 12;
  train(recipe, into(folder / "run"));
  const RunLog log = read_run_log(folder / "run/metrics.jsonl");
  ASSERT_EQ(log.steps.size(), 24u);
  const auto& losses = log.steps[0].losses;
  ASSERT_EQ(losses.size(), 3u);
  ASSERT_EQ(log.steps[0].figures.size(), 5u);
  EXPECT_EQ(log.steps[0].figures[1].first, "s_student");
  EXPECT_GT(log.steps[0].figures[1].second, 0);
  EXPECT_EQ(losses[1].first, "sc");
  EXPECT_EQ(losses[2].first, "grad");
  double first = 0, last = 0;
  for (size_t i = 0; i < 6; ++i) {
    first += log.steps[i].losses[0].second;
    last += log.steps[log.steps.size() - 1 - i].losses[0].second;
  }
  EXPECT_LT(last, first);
  const auto trained = load_model(folder / "run/best.safetensors");
  EXPECT_EQ(trained->options().head, Head::kRelative);
  ASSERT_TRUE(trained->trained_use());
  EXPECT_EQ(trained->trained_use()->side, 32);
}

// With two teachers, one of whole maps and one of regions, from each step of two epochs.
TEST(DistillRun, GoesOnFromAnyStepBitForBit) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.regions.teachers = {"teacher", "regions"};
  recipe.regions.shares = {0.5, 0.5};
  const auto teacher = write_teacher(folder / "teacher.safetensors", 5);
  teach_all(recipe, 1, *teacher, folder / "teacher.safetensors");
  train(recipe, into(folder / "whole"));
  for (int64_t step = 1; step < 4; ++step) {
    SCOPED_TRACE(step);
    TrainOptions options = into(folder / ("halves_" + std::to_string(step)));
    train_until(step, recipe, options);
    options.resume = true;
    train(recipe, options);
    expect_same_files(folder / "whole/last.safetensors", options.out + "/last.safetensors");
  }
  TrainOptions options = into(folder / "other");
  train_until(1, recipe, options);
  options.resume = true;
  recipe.regions.shares = {0.6, 0.4};
  EXPECT_NE(error_of([&] { train(recipe, options); }).find("distill.teacher_weights"), std::string::npos);
}

TEST(DistillRun, GoesOnWithTheSameLossesAndTeachersAlone) {
  const TemporaryFolder folder;
  const Recipe recipe = recipe_of(folder);
  TrainOptions options = into(folder / "run");
  train_until(1, recipe, options);
  options.resume = true;
  Recipe other = recipe;
  other.distill.norm = ContextNorm::kGlobal;
  EXPECT_NE(error_of([&] {
              train(other, options);
            }).find("expected a checkpoint with distill.norm \"global\", found \"hybrid\""),
            std::string::npos);
  other = recipe;
  other.regions.unstated = Quantity::kInverseDepth;
  EXPECT_NE(error_of([&] { train(other, options); }).find("distill.teacher_quantity"), std::string::npos);
  other = recipe;
  other.drift_factor = 50;  // decides no step
  train(other, options);
}

// In the arena, as a graph, with batches through the ring; the emulated device where there is none.
TEST(DistillRun, TheDeviceTrainsAsTheCpuDoes) {
  if (!built_with_cuda()) enable_emulated_cuda();
  if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  LibraryOptions repeatable = library_options();
  repeatable.deterministic = true;
  const test::WithOptions with(repeatable);
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.train.epochs = 3;
  TrainOptions graph = into(folder / "graph"), plain = into(folder / "plain");
  graph.device = plain.device = Device::kCuda;
  plain.graph = false;
  train(recipe, plain);
  train(recipe, graph);
  expect_same_files(folder / "plain/last.safetensors", folder / "graph/last.safetensors");

  // Regions whose deepest maps have more than a pixel: batch norms over two numbers would amplify any difference.
  recipe.regions.spec.patch = recipe.regions.spec.least = recipe.regions.size = 64;
  recipe.train.max_steps = 1;
  TrainOptions device = into(folder / "device");
  device.device = Device::kCuda;
  train(recipe, device);
  train(recipe, into(folder / "cpu"));
  const StepRecord found = read_run_log(folder / "device/metrics.jsonl").steps.at(0),
                   expected = read_run_log(folder / "cpu/metrics.jsonl").steps.at(0);
  const auto expect_same = [](const auto& a, const auto& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t k = 0; k < a.size(); ++k) EXPECT_NEAR(a[k].second, b[k].second, 5e-3 * b[k].second) << a[k].first;
  };
  expect_same(found.losses, expected.losses);
  expect_same(found.figures, expected.figures);
}

// What teach writes is what the network says of the region that the loader draws.
TEST(DistillRun, LabelsOfRegionsAreThoseOfTheNetwork) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.regions.teachers = {"regions"};
  const auto teacher = write_teacher(folder / "teacher.safetensors", 6);
  const RegionTeachReport report = teach_all(recipe, 0, *teacher, folder / "teacher.safetensors");
  EXPECT_EQ(report.written, 8);
  EXPECT_EQ(teach_all(recipe, 0, *teacher, folder / "teacher.safetensors").kept, 8);

  const auto data = std::make_shared<const Dataset>(dataset_spec(recipe, "train"));
  LoaderOptions loading = loader_options(recipe);
  loading.regions = region_loading(recipe, *data);
  Loader loader(data, loading);
  int labels = 0;
  while (const auto batch = loader.next()) {
    const BatchViews views = to_tensors(*batch, DType::kFloat, Device::kCpu);
    const NoGrad no_grad;
    const std::vector<float> expected = to_vector<float>(teacher->forward(views[0].image).map);
    const std::vector<float> found = to_vector<float>(views[0].teacher);
    const float scale = *std::max_element(expected.begin(), expected.end());
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-3f * scale) << i;
    labels += static_cast<int>(batch->items.size());
  }
  EXPECT_EQ(labels, 8);

  const auto other = write_teacher(folder / "other.safetensors", 7);
  EXPECT_NE(error_of([&] {
              teach_all(recipe, 0, *other, folder / "other.safetensors");
            }).find("holds labels of other weights"),
            std::string::npos);
  recipe.train.seed = 71;
  EXPECT_NE(error_of([&] { region_loading(recipe, *data); }).find("train.seed = 70, but the recipe says 71"),
            std::string::npos);
  recipe.train.seed = 70;
  recipe.train.epochs = 3;
  EXPECT_NE(error_of([&] { region_loading(recipe, *data); }).find("expected labels of 3 epochs, found 2"),
            std::string::npos);
  const RegionTeachReport more = teach_all(recipe, 0, *teacher, folder / "teacher.safetensors");
  EXPECT_EQ(more.written, 4);
  EXPECT_EQ(more.kept, 8);
  EXPECT_TRUE(region_loading(recipe, *data));
}

// A run reads no label behind its end, also on a device, where batches are brought ahead; and those that it lacks are
// named before it starts.
TEST(DistillRun, ReadsTheLabelsOfItsOwnStepsAndNoOthers) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.regions.teachers = {"regions"};
  recipe.train.max_steps = 3;
  const auto teacher = write_teacher(folder / "teacher.safetensors", 6);
  EXPECT_EQ(teach_all(recipe, 0, *teacher, folder / "teacher.safetensors").written, 6);
  train(recipe, into(folder / "cpu"));
  if (!built_with_cuda()) enable_emulated_cuda();
  if (available(Device::kCuda)) {
    TrainOptions options = into(folder / "device");
    options.device = Device::kCuda;
    train(recipe, options);
    EXPECT_EQ(read_run_log(folder / "device/metrics.jsonl").steps.size(), 3u);
  }
  TrainOptions halves = into(folder / "halves");
  train_until(2, recipe, halves);
  fs::remove_all(folder / "regions/e0");  // read already
  halves.resume = true;
  train(recipe, halves);
  EXPECT_EQ(teach_all(recipe, 0, *teacher, folder / "teacher.safetensors").written, 4);

  recipe.train.max_steps = 4;
  const std::string lacking =
      folder / "regions: expected 8 labels, of the regions that this run draws; missing are 2, the first ";
  EXPECT_EQ(error_of([&] { train(recipe, into(folder / "longer")); }).rfind(lacking, 0), 0u);
  EXPECT_FALSE(fs::exists(folder / "longer"));
  CheckOptions options;
  options.training = needs_of(recipe);
  options.distilled = &recipe;
  std::ostringstream out;
  EXPECT_EQ(check_data(dataset_spec(recipe, "train"), nullptr, options, out), 1);
  EXPECT_NE(out.str().find(lacking), std::string::npos) << out.str();
}

TEST(DistillRun, LabelsGoIntoAFolderOfTheirOwn) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);  // whose teacher is a folder of whole images
  const std::string file = folder / "teacher.safetensors";
  const auto teacher = write_teacher(file, 6);
  const auto message = [&] { return error_of([&] { teach_all(recipe, 0, *teacher, file); }); };
  EXPECT_EQ(message(), folder / "teacher: expected labels of regions or an empty folder, found something else");
  EXPECT_FALSE(is_region_folder(folder / "teacher"));
  recipe.regions.teachers = {"regions"};
  recipe.regions.spec.patch = 33;
  EXPECT_EQ(message(), "distill.patch: expected a multiple of 2 for the teacher mobilenet_unet_small, found 33");
  recipe.regions.spec.patch = 32;
  std::ofstream(folder / "list.txt", std::ios::app) << "images/1.png depth/2.png 50.5\n";
  EXPECT_EQ(message(), folder / "list.txt:5: expected each image once, found images/1.png in line 2, too");
  EXPECT_FALSE(fs::exists(folder / "regions"));
}

// L_lg: the teacher sees patches of a region at their own size, the student the region once.
TEST(DistillRun, PatchesAreThoseThatTheNetworkSawAtTheirOwnSize) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.distill.lambda_lg = 0.5f;
  recipe.regions.spec.patches = 3;
  EXPECT_NE(error_of([&] { train(recipe, into(folder / "run")); }).find("distill.lambda_lg: expected 0 with maps of"),
            std::string::npos);
  recipe.regions.teachers = {"regions"};
  const auto teacher = write_teacher(folder / "teacher.safetensors", 6);
  teach_all(recipe, 0, *teacher, folder / "teacher.safetensors");

  const auto data = std::make_shared<const Dataset>(dataset_spec(recipe, "train"));
  LoaderOptions loading = loader_options(recipe);
  loading.regions = region_loading(recipe, *data);
  Loader loader(data, loading);
  const Batch batch = loader.next().value();
  const LabelledRegion& drawn = *batch.items[1].region;
  const SampleImage& photo = batch.items[1].sample->image;
  ASSERT_EQ(drawn.region.patches.size(), 3u);
  RegionParams params = region_params(drawn.region, drawn.region.scaled);
  params.row = drawn.region.patches[2].row;
  params.column = drawn.region.patches[2].column;
  Tensor input = empty({1, 32, 32, 3}, DType::kFloat);
  cpu::preprocess_region<float>(stream_of(Device::kCpu), {72, 96, 96}, photo.rgb.data(), params, 32,
                                input.data<float>());
  const std::vector<float> expected = [&] {
    const NoGrad no_grad;
    return to_vector<float>(teacher->forward(input).map);
  }();
  const float scale = *std::max_element(expected.begin(), expected.end());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(drawn.label.patches[2 * 32 * 32 + i], expected[i], 1e-3f * scale) << i;
  }

  train(recipe, into(folder / "run"));
  const auto losses = read_run_log(folder / "run/metrics.jsonl").steps.at(0).losses;
  ASSERT_EQ(losses.size(), 4u);
  EXPECT_EQ(losses[2].first, "lg");
  EXPECT_NEAR(losses[0].second, losses[1].second + 0.5 * losses[2].second + 2 * losses[3].second, 1e-5);
  TrainOptions halves = into(folder / "halves");
  train_until(3, recipe, halves);
  halves.resume = true;
  train(recipe, halves);
  expect_same_files(folder / "run/last.safetensors", folder / "halves/last.safetensors");
  recipe.distill.lambda_lg = 0;
  EXPECT_NE(error_of([&] { region_loading(recipe, *data); }).find("distill.patches = 3, but the recipe says 0"),
            std::string::npos);
}

// Depth Anything 3 teaches regions by what is no sky; what is all sky teaches nothing.
TEST(DistillRun, DepthAnything3LabelsAreInverseAndKnowTheSky) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.train.epochs = 1;
  recipe.regions.spec.patch = 28;
  recipe.regions.teachers = {"regions"};
  auto teacher = make_model("da3mono_s", {.head = Head::kRelativeDepth});
  teacher->initialize(5);
  const auto set = [&](const std::string& name, float value) {
    for (const StateEntry& entry : teacher->state()) {
      if (entry.name != "depth_head.scratch." + name) continue;
      copy_(*entry.tensor, tensor<float>(entry.tensor->shape(),
                                         std::vector<float>(static_cast<size_t>(entry.tensor->numel()), value)));
    }
  };
  set("sky_output_conv2.2.weight", 0);
  teacher->eval();
  const Dataset data(dataset_spec(recipe, "train"));
  for (const bool sky : {false, true}) {
    recipe.regions.teachers = {sky ? "sky" : "ground"};
    set("sky_output_conv2.2.bias", sky ? 5.0f : -5.0f);
    const std::string weights = folder / (sky ? "sky.safetensors" : "ground.safetensors");
    save_model(weights, *teacher);
    EXPECT_GT(teach_all(recipe, 0, *teacher, weights).written, 0);
    const RegionTask task = region_tasks(recipe, data, 0).at(0);
    const std::vector<float> values = read_npy(task.path).values;
    EXPECT_TRUE(std::ranges::all_of(values, [&](float v) { return sky ? std::isnan(v) : v > 0; })) << sky;
    EXPECT_EQ(label_problem(values), sky ? "holds no finite value" : "");
  }
}

TEST(DistillRun, DepthAnything3IsNoStudentYet) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.loss_name = "tie_kd";
  recipe.loss = named_loss("tie_kd");
  recipe.data.train.teacher = "teacher";
  recipe.regions.teachers.clear();
  recipe.model.name = "da3metric_s";
  recipe.model.options = {.head = Head::kCanonicalDepth};
  EXPECT_NE(
      error_of([&] { train(recipe, into(folder / "run")); }).find("da3metric_s: expected a student with the head"),
      std::string::npos);
}

// L_feat: features of a frozen encoder, from a file of it or of a whole network that has it.
TEST(DistillRun, AFrozenEncoderHoldsTheStudentsFeatures) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.model.name = "dpt_s";
  recipe.regions.spec.patch = recipe.regions.size = 28;
  recipe.train.max_steps = 2;
  auto other = make_model("dpt_s", {.head = Head::kRelative});
  other->initialize(9);
  save_model(folder / "other.safetensors", *other);
  recipe.features = folder / "other.safetensors";
  train(recipe, into(folder / "run"));
  const RunLog log = read_run_log(folder / "run/metrics.jsonl");
  const auto& losses = log.steps.at(0).losses;
  ASSERT_EQ(losses.size(), 4u);
  EXPECT_EQ(losses[3].first, "feat");
  EXPECT_GT(losses[3].second, 0.15) << "features of two random networks";
  EXPECT_NEAR(losses[0].second, losses[1].second + 2 * losses[2].second + losses[3].second, 1e-4);
  TrainOptions again = into(folder / "run");
  again.resume = true;
  other->initialize(10);
  save_model(folder / "other.safetensors", *other);
  EXPECT_NE(error_of([&] { train(recipe, again); }).find("distill.features"), std::string::npos);
  recipe.model.name = "dpt_b";
  EXPECT_NE(error_of([&] {
              train(recipe, into(folder / "b"));
            }).find("other.safetensors: expected the DINOv2 encoder of dpt_b, found weights for dpt_s"),
            std::string::npos);
}

// Another program reads the list and writes the files; it may know nothing of some pixels.
TEST(DistillRun, AnotherProgramMakesLabelsFromTheList) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  recipe.regions.teachers = {"theirs"};
  recipe.regions.unstated = Quantity::kInverseDepth;
  const Dataset data(dataset_spec(recipe, "train"));
  list_regions(recipe, data, 0, folder / "regions.csv", [](int64_t, int64_t) {});
  std::ifstream csv(folder / "regions.csv");
  std::string line;
  std::getline(csv, line);
  EXPECT_EQ(line, "image,epoch,top,left,side,scaled,mirrored,virtual,patches,file");
  int lines = 0;
  while (std::getline(csv, line)) {
    ++lines;
    std::vector<std::string> fields;
    std::istringstream in(line);
    for (std::string field; std::getline(in, field, ',');) fields.push_back(field);
    ASSERT_EQ(fields.size(), 10u);
    EXPECT_EQ(fields[8], "");
    EXPECT_TRUE(fs::exists(fields[0]));
    const int side = std::stoi(fields[4]);
    EXPECT_TRUE(side >= 40 && side <= 72) << line;
    EXPECT_EQ(fields[5], "32");
    std::vector<float> map(32 * 32);
    for (size_t i = 0; i < map.size(); ++i) map[i] = static_cast<float>(i % 37 + static_cast<size_t>(side));
    map[7] = std::nanf("");
    make_folder(fs::path(fields[9]).parent_path().string());
    const std::vector<int64_t> shape = {32, 32};
    write_npy(fields[9], shape, map);
  }
  EXPECT_EQ(lines, 8);
  train(recipe, into(folder / "run"));
  EXPECT_EQ(read_run_log(folder / "run/metrics.jsonl").steps.size(), 4u);
}

// Places are those of the stored image, which another program opens.
TEST(DistillRun, AListCountsFromTheCornerOfTheStoredImage) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_of(folder);
  testing_files::write_small_set(folder, 2, 640, 480);
  recipe.data.crop = CropRule::kNyuBorder;
  recipe.train.epochs = 1;
  recipe.regions.teachers = {"theirs"};
  const Dataset data(dataset_spec(recipe, "train"));
  list_regions(recipe, data, 0, folder / "regions.csv", [](int64_t, int64_t) {});
  std::ifstream csv(folder / "regions.csv");
  std::string line;
  std::getline(csv, line);
  int lines = 0;
  for (const RegionTask& task : region_tasks(recipe, data, 0)) {
    ASSERT_TRUE(std::getline(csv, line)) << ++lines;
    const Region region = draw_region(recipe.regions.spec, {560, 426}, recipe.train.seed, 0, task.index);
    EXPECT_NE(line.find(concat_text(",0,", region.top + 45, ',', region.left + 41, ',', region.side, ",32,")),
              std::string::npos)
        << line;
  }
}

// A map that is constant teaches nothing, and is no error: it is named.
TEST(DistillRun, ConstantLabelsDoNotCountAndAreNamed) {
  const TemporaryFolder folder;
  const Recipe recipe = recipe_of(folder);
  write_map(folder / "teacher/images_2.png", {96, 72, std::vector<float>(96 * 72, 4.0f)}, {80.0 / 65535});
  testing::internal::CaptureStderr();
  train(recipe, into(folder / "run"));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("1 of 2 labels teach nothing: " + (folder / "teacher/images_2.png") + " is constant"),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("warning: 1 of 4 labels teach nothing, such as "), std::string::npos) << said;
  for (const char* name : {"0", "1", "3"}) {
    write_map(folder / (std::string("teacher/images_") + name + ".png"), {96, 72, std::vector<float>(96 * 72, 4.0f)},
              {80.0 / 65535});
  }
  EXPECT_EQ(error_of([&] {
              train(recipe, into(folder / "nothing"));
            }).rfind("epoch 1: expected a label that teaches something, found 4 that are constant", 0),
            0u);
}

TEST(DistillRun, CheckDataReadsLabels) {
  const TemporaryFolder folder;
  const Recipe recipe = recipe_of(folder);
  EXPECT_EQ(checked(recipe).first, 0) << checked(recipe).second;
  fs::remove(folder / "teacher/images_1.png");
  const auto [result, text] = checked(recipe);
  EXPECT_EQ(result, 1);
  EXPECT_NE(text.find("list.txt:2: "), std::string::npos) << text;
}

}  // namespace
}  // namespace depthstill
