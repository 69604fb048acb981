// `depthstill train` as it would run on a GPU: what each step asks of the device.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/allocator.h"
#include "engine/io/npy.h"
#include "kernels/core/dry_run.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "tests/tools/small_recipe.h"
#include "tools/teach_regions.h"
#include "tools/train_run.h"

namespace depthstill {
namespace {

using testing_files::TemporaryFolder;

struct StepRecord {
  cuda::DryRun asked;
  MemoryStats memory;
};

// Six 64x32 images, batches of two: three steps an epoch.
std::vector<StepRecord> train_dry(bool graph, int epochs = 3, int batch_size = 2, bool drop_last = true) {
  enable_dry_run();
  const TemporaryFolder folder;
  testing_files::write_small_set(folder, 6, 64, 32);
  Recipe recipe = testing_files::recipe_of_small_set(folder, 1e-4);
  recipe.train.epochs = epochs;
  recipe.train.batch_size = batch_size;
  recipe.train.drop_last = drop_last;
  recipe.train.log_every = 100;
  TrainOptions options;
  options.out = folder / "run";
  options.device = Device::kCuda;
  options.dtype = DType::kBf16;
  options.graph = graph;
  std::vector<StepRecord> steps;
  options.on_step = [&](int64_t) { steps.push_back({cuda::take_dry_run(), memory_stats(Device::kCuda)}); };
  cuda::take_dry_run();
  train(recipe, options);
  return steps;
}

TEST(DryTrainer, AfterWarmUpAStepIsOneGraphAndAllocatesNothing) {
  const std::vector<StepRecord> steps = train_dry(true);
  ASSERT_EQ(steps.size(), 9u);
  for (size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(i + 1);
    EXPECT_EQ(steps[i].asked.graph_launches, i >= 3 ? 1 : 0);
    if (i < 4) continue;
    EXPECT_EQ(steps[i].asked.mallocs, 0);
    EXPECT_EQ(steps[i].memory.in_use, steps[3].memory.in_use);
    // Only a step before which or after which something is saved waits for the device, or predicts.
    const bool saved = i % 3 == 0 || i % 3 == 2;
    if (!saved) {
      EXPECT_EQ(steps[i].memory.allocations, steps[i - 1].memory.allocations);
      EXPECT_EQ(steps[i].asked.synchronizations, 0);
      EXPECT_EQ(steps[i].asked.copies_to_host, 0);
    }
  }
}

// Labels of all regions and their patches, as another program writes them.
void write_labels(const Recipe& recipe, const TemporaryFolder& folder) {
  const Dataset data(dataset_spec(recipe, "train"));
  list_regions(recipe, data, 0, folder / "regions.csv", [](int64_t, int64_t) {});
  const int64_t side = recipe.regions.spec.patch;
  const std::vector<int64_t> shape = {3, side, side};
  std::vector<float> values(static_cast<size_t>(3 * side * side));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7 % 101);
  for (const RegionTask& task : region_tasks(recipe, data, 0)) {
    make_folder(std::filesystem::path(task.path).parent_path().string());
    write_npy(task.path, shape, values);
  }
}

// Three steps an epoch, of labels that are stored, or of those with others that a network makes.
std::vector<cuda::DryRun> distil_dry(bool online) {
  enable_dry_run();
  const TemporaryFolder folder;
  testing_files::write_small_set(folder, 6, 96, 64);
  Recipe recipe = testing_files::recipe_of_small_set(folder, 1e-4);
  recipe.model.name = "mobilenet_unet_small";
  recipe.model.options = {.head = Head::kRelative};
  recipe.loss_name = kDistillAnyDepthLoss;
  recipe.loss = {};
  recipe.data.train.teacher = "";
  recipe.regions.spec = {.patch = 32, .least = 40, .patches = 0};
  recipe.regions.size = 32;
  recipe.regions.teachers = {"regions"};
  recipe.regions.spec.patches = 2;
  recipe.train.epochs = 3;
  recipe.train.log_every = 100;
  if (online) {
    const auto network = make_model("mobilenet_unet_small", recipe.model.options);
    network->initialize(1);
    save_model(folder / "teacher.safetensors", *network);
    recipe.regions.teachers.push_back(folder / "teacher.safetensors");
    recipe.regions.spec.patch = 64;
    recipe.regions.spec.least = 64;
    recipe.label_batch = 3;
  }
  write_labels(recipe, folder);
  TrainOptions options;
  options.out = folder / "run";
  options.device = Device::kCuda;
  options.dtype = DType::kBf16;
  std::vector<cuda::DryRun> steps;
  options.on_step = [&](int64_t) { steps.push_back(cuda::take_dry_run()); };
  cuda::take_dry_run();
  train(recipe, options);
  return steps;
}

void expect_no_waits(const std::vector<cuda::DryRun>& steps) {
  ASSERT_EQ(steps.size(), 9u);
  for (size_t i = 4; i < steps.size(); ++i) {
    SCOPED_TRACE(i + 1);
    EXPECT_EQ(steps[i].graph_launches, 1);
    EXPECT_EQ(steps[i].mallocs, 0);
    const bool saved = i % 3 == 0 || i % 3 == 2;
    if (saved) continue;
    EXPECT_EQ(steps[i].synchronizations, 0);
    EXPECT_EQ(steps[i].copies_to_host, 0);
  }
}

// Labels come with the batch: a step that distils waits for nothing, either.
TEST(DryTrainer, AStepThatDistilsIsOneGraphToo) {
  const std::vector<cuda::DryRun> steps = distil_dry(false);
  expect_no_waits(steps);
  int losses = 0;
  for (const cuda::Launch& launch : steps[0].launches) {
    losses += launch.where.find("kernels/context/") != std::string::npos;
  }
  EXPECT_GT(losses, 8);
  EXPECT_LE(losses, 42) << "launches of all losses";
}

// A network that makes labels is launched before the same graph, and waits for nothing.
TEST(DryTrainer, AnOnlineTeacherRunsBesideTheGraph) {
  const std::vector<cuda::DryRun> steps = distil_dry(true);
  expect_no_waits(steps);
  int labelled = 0;
  for (size_t i = 4; i < steps.size(); ++i) {
    const auto screens = std::ranges::count_if(steps[i].launches, [](const cuda::Launch& launch) {
      return launch.where.find("screen_labels.cu") != std::string::npos;
    });
    EXPECT_TRUE(screens == 0 || screens == 2) << screens;
    labelled += screens > 0;
  }
  EXPECT_GT(labelled, 0);
  EXPECT_LT(labelled, 5) << "the other teacher's labels are stored";
}

TEST(DryTrainer, WithoutGraphsAStepLaunchesItsKernelsInTheArena) {
  const std::vector<StepRecord> steps = train_dry(false, 2);
  ASSERT_EQ(steps.size(), 6u);
  for (size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(i + 1);
    EXPECT_EQ(steps[i].asked.graph_launches, 0);
    EXPECT_GT(steps[i].asked.launches.size(), 100u);
    if (i > 2 && i < 5) {  // before the save at the end, for which a prediction is made
      EXPECT_EQ(steps[i].memory.allocations, steps[2].memory.allocations);
    }
  }
}

TEST(DryTrainer, AnIncompleteBatchRunsBesideTheGraph) {
  const std::vector<StepRecord> steps = train_dry(true, 5, 4, false);  // images: 4, 2, 4, 2, ...
  ASSERT_EQ(steps.size(), 10u);
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i].asked.graph_launches, i == 6 || i == 8 ? 1 : 0) << "step " << i + 1;
  }
}

}  // namespace
}  // namespace depthstill
