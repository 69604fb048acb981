// Whole training runs on a few small images: resuming, interruption, memory, and what stops a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "engine/allocator.h"
#include "engine/io/image.h"
#include "engine/io/safetensors.h"
#include "engine/io/text_file.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "models/predictor.h"
#include "tests/tools/runs.h"
#include "tests/tools/small_recipe.h"
#include "tools/interrupt.h"
#include "tools/report/run_log.h"
#include "tools/train_run.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::TemporaryFolder;
using namespace testing_runs;

// Four 64x32 images, batches of two: two steps an epoch.
Recipe small_recipe(const TemporaryFolder& folder) {
  testing_files::write_small_set(folder, 4, 64, 32);
  Recipe recipe = testing_files::recipe_of_small_set(folder, 1e-4);
  recipe.train.checkpoint_keep = 1;
  return recipe;
}

std::string message_of(const Recipe& recipe, const TrainOptions& options) {
  try {
    train(recipe, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "trained";
}

TEST(Trainer, AnInterruptedRunResumesBitForBit) {
  const TemporaryFolder folder;
  const Recipe recipe = small_recipe(folder);
  train(recipe, into(folder / "whole"));

  TrainOptions options = into(folder / "halves");
  train_until(3, recipe, options);  // the middle of the second epoch
  EXPECT_NE(message_of(recipe, options).find("holds a run already"), std::string::npos);
  options.resume = true;
  train(recipe, options);

  expect_same_files(folder / "whole/last.safetensors", folder / "halves/last.safetensors");
  const RunLog whole = read_run_log(folder / "whole/metrics.jsonl"),
               halves = read_run_log(folder / "halves/metrics.jsonl");
  ASSERT_EQ(whole.steps.size(), 4u);
  ASSERT_EQ(halves.steps.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(whole.steps[i].losses, halves.steps[i].losses);
  for (const char* name : {"recipe.toml", "report.html", "best.safetensors"}) {
    EXPECT_TRUE(fs::exists(folder / (std::string("whole/") + name))) << name;
  }
}

// What lies in last.safetensors when a run ends without a word is that of the last save point.
TEST(Trainer, SavesBetweenEpochsToo) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  recipe.train.batch_size = 1;  // four steps an epoch
  recipe.train.save_every = 3;
  train(recipe, into(folder / "whole"));

  std::vector<int64_t> saved;
  TrainOptions options = into(folder / "killed");
  options.on_step = [&](int64_t updates) {
    const fs::path last = folder / "killed/last.safetensors";
    saved.push_back(fs::exists(last) ? std::stoll(SafetensorsFile(last.string()).metadata().at("updates")) : 0);
    if (updates == 8) fail("the power went");
  };
  EXPECT_EQ(message_of(recipe, options), "the power went");
  EXPECT_EQ(saved, (std::vector<int64_t>{0, 0, 0, 3, 4, 4, 6, 6})) << "a step hears of itself before it is saved";

  TrainOptions resumed = into(folder / "killed");
  resumed.resume = true;
  train(recipe, resumed);
  expect_same_files(folder / "whole/last.safetensors", folder / "killed/last.safetensors");
}

// A part that is frozen keeps its bits, batch norms' statistics too; others learn at rates of their own.
TEST(Trainer, PartsOfANetworkLearnAtRatesOfTheirOwnOrNotAtAll) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  train(recipe, into(folder / "first"));
  const std::string first = folder / "first/last.safetensors";
  recipe.model.weights = first;
  recipe.model.frozen = "encoder";
  train(recipe, into(folder / "frozen"));
  recipe.model.frozen = "nothing";
  recipe.encoder_lr_scale = 0.0f;
  recipe.head_lr_scale = 0.0f;
  train(recipe, into(folder / "still"));
  const SafetensorsFile before(first), frozen(folder / "frozen/last.safetensors"),
      still(folder / "still/last.safetensors");
  const auto same = [&](const SafetensorsFile& file, const StoredTensor& tensor) {
    const auto x = before.bytes(tensor), y = file.bytes(file.at(tensor.name));
    return std::equal(x.begin(), x.end(), y.begin(), y.end());
  };
  int changed = 0;
  for (const StoredTensor& tensor : before.tensors()) {
    if (tensor.name.starts_with("optimizer.")) {
      EXPECT_EQ(frozen.find(tensor.name) != nullptr, tensor.name.find(".decode_head.") != std::string::npos);
      continue;
    }
    const bool statistic = tensor.name.find("running_") != std::string::npos || tensor.name.ends_with("tracked");
    EXPECT_TRUE(same(frozen, tensor) || !tensor.name.starts_with("backbone.")) << tensor.name;
    changed += !same(frozen, tensor);
    EXPECT_TRUE(same(still, tensor) || statistic) << tensor.name;
  }
  EXPECT_GT(changed, 4);

  recipe.model.frozen = "encoder";
  recipe.head_lr_scale = 1.0f;
  TrainOptions halves = into(folder / "halves");
  train_until(3, recipe, halves);
  halves.resume = true;
  train(recipe, halves);
  expect_same_files(folder / "frozen/last.safetensors", folder / "halves/last.safetensors");
}

TEST(Trainer, AllocatesNothingAfterTheFirstStep) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  recipe.train.epochs = 3;
  std::vector<MemoryStats> after;
  TrainOptions options = into(folder / "run");
  options.on_step = [&](int64_t) { after.push_back(memory_stats(Device::kCpu)); };
  train(recipe, options);
  ASSERT_EQ(after.size(), 6u);
  for (size_t i = 1; i < after.size(); ++i) {
    EXPECT_EQ(after[i].high_water_moves, after[0].high_water_moves) << "step " << i + 1;
    EXPECT_EQ(after[i].system_allocations, after[0].system_allocations) << "step " << i + 1;
    EXPECT_EQ(after[i].in_use, after[0].in_use) << "step " << i + 1;
  }
}

TEST(Trainer, KeepsTheBestModelOfTheValidationList) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  recipe.data.val = {"list.txt", "teacher"};
  recipe.train.checkpoint_keep = 1;
  recipe.select.metric = "abs_rel";
  train(recipe, into(folder / "run"));
  std::ifstream file(folder / "run/report.html");
  const std::string report(std::istreambuf_iterator<char>(file), {});
  for (const char* text : {"constant ", "median of each row", "from list.txt, 4 images", "last epoch 2",
                           "relative error against the teacher", "chosen by abs_rel"}) {
    EXPECT_NE(report.find(text), std::string::npos) << text;
  }
  EXPECT_TRUE(fs::exists(folder / "run/baselines.json"));
  const RunLog log = read_run_log(folder / "run/metrics.jsonl");
  ASSERT_EQ(log.evals.size(), 2u);
  const bool second_is_better = log.evals[1].metrics.abs_rel < log.evals[0].metrics.abs_rel;
  EXPECT_EQ(SafetensorsFile(folder / "run/best.safetensors").metadata().at("epoch"), second_is_better ? "2" : "1");
  EXPECT_FALSE(fs::exists(folder / "run/epoch_001.safetensors"));
  EXPECT_TRUE(fs::exists(folder / "run/epoch_002.safetensors"));
}

// The losses of every step agree to rounding.
void expect_same_losses(const fs::path& a, const fs::path& b) {
  const RunLog one = read_run_log(a / "metrics.jsonl"), other = read_run_log(b / "metrics.jsonl");
  ASSERT_EQ(one.steps.size(), other.steps.size());
  for (size_t i = 0; i < one.steps.size(); ++i) {
    const double expected = other.steps[i].losses[0].second;
    EXPECT_NEAR(one.steps[i].losses[0].second, expected, 1e-4 * expected) << "step " << i + 1;
  }
}

TEST(Trainer, ComputingAllRowsGivesTheSameLoss) {
  const TemporaryFolder folder;
  const Recipe recipe = small_recipe(folder);
  TrainOptions all = into(folder / "all");
  all.dead_rows = false;
  train(recipe, into(folder / "needed"));
  train(recipe, all);
  expect_same_losses(folder / "needed", folder / "all");
}

TEST(Trainer, TheFusedHeadTrainsTheSame) {
  const TemporaryFolder folder;
  const Recipe recipe = small_recipe(folder);
  TrainOptions fused = into(folder / "fused");
  fused.fused_head = true;
  train(recipe, into(folder / "stored"));
  train(recipe, fused);
  expect_same_losses(folder / "fused", folder / "stored");
}

// The way that the head takes decides the last bits of a run.
TEST(Trainer, AResumedRunKeepsToItsHead) {
  const TemporaryFolder folder;
  const Recipe recipe = small_recipe(folder);
  const auto is_fused = [&](const std::string& run) {
    return SafetensorsFile(folder / (run + "/last.safetensors")).metadata().at("fused_head");
  };
  TrainOptions whole = into(folder / "whole"), half = into(folder / "half");
  whole.fused_head = half.fused_head = true;
  train(recipe, whole);
  train_until(3, recipe, half);
  fs::copy(folder / "half", folder / "other", fs::copy_options::recursive);

  TrainOptions resumed = into(folder / "half");
  resumed.resume = true;
  train(recipe, resumed);
  EXPECT_EQ(is_fused("half"), "1");
  expect_same_files(folder / "whole/last.safetensors", folder / "half/last.safetensors");

  resumed.out = folder / "other";
  resumed.fused_head = false;
  const ImageDecoders began = image_decoders();
  image_options().libraries = false;
  testing::internal::CaptureStderr();
  train(recipe, resumed);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(is_fused("other"), "0") << "what is asked for wins";
  const std::string note = "read JPEG files by " + began.jpeg + " and goes on with stb_image";
  EXPECT_EQ(said.find(note) != std::string::npos, began.jpeg != "stb_image") << said;
  image_options().libraries = true;
  train(recipe, into(folder / "usual"));
  EXPECT_EQ(is_fused("usual"), "0") << "on the CPU";
}

TEST(Trainer, ANonFiniteLossNamesStepImagesAndCheckpoint) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  recipe.train.epochs = 20;
  recipe.schedule.kind = Schedule::Kind::kConstant;
  recipe.schedule.lr = 1e18;
  const std::string message = message_of(recipe, into(folder / "run"));
  EXPECT_NE(message.find("is not finite; images: images/"), std::string::npos) << message;
  EXPECT_TRUE(message.ends_with("; the learning rate was 1e+18")) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

// A run whose targets are nowhere usable.
std::string said_by(const Recipe& recipe, const TrainOptions& options, std::string& message) {
  testing::internal::CaptureStderr();
  message = message_of(recipe, options);
  return testing::internal::GetCapturedStderr();
}

void write_empty_teacher(const TemporaryFolder& folder, int number) {
  write_png(folder / concat_text("teacher/images_", number, ".png"), Image16{64, 32, std::vector<uint16_t>(64 * 32)});
}

TEST(Trainer, ARunWithNothingToLearnFromFails) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  for (int i = 0; i < 4; ++i) write_empty_teacher(folder, i);
  std::string message;
  const std::string said = said_by(recipe, into(folder / "run"), message);
  EXPECT_NE(message.find("epoch 1: expected a target pixel that counts"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder / "run/last.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "run/best.safetensors"));
  for (int i = 1; i <= 4; ++i) {
    EXPECT_NE(
        said.find(concat_text("list.txt:", i, ": images/", i - 1, ".png: expected depths between 0.001 and 80 m")),
        std::string::npos)
        << said;
  }
  EXPECT_NE(said.find("step 1 (epoch 1): no target pixel that counts; images: images/"), std::string::npos) << said;
  EXPECT_NE(said.find("step 2 (epoch 1): no target pixel"), std::string::npos) << said;
  // Nor is there anything in the rows that count, or within the range.
  testing_files::write_small_set(folder, 4, 64, 32);
  recipe.model.options.d_min = 79;
  said_by(recipe, into(folder / "far"), message);
  EXPECT_NE(message.find("expected a target pixel that counts"), std::string::npos) << message;
}

TEST(Trainer, AStepWithoutATargetIsSaid) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  recipe.train.batch_size = 1;
  recipe.train.epochs = 1;
  write_empty_teacher(folder, 2);
  std::string message;
  const std::string said = said_by(recipe, into(folder / "run"), message);
  EXPECT_EQ(message, "trained");
  EXPECT_NE(said.find("(epoch 1): no target pixel that counts; images: images/2.png (" + (folder / "list.txt:3)")),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("note: 1 steps had no target pixel that counts"), std::string::npos) << said;
  EXPECT_EQ(said.find("list.txt:2: images/1.png"), std::string::npos) << said;
}

// A sky at 655.35 m, or infinity, is no other target than a hole.
TEST(Trainer, TruthBeyondTheRangeIsAHole) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  recipe.model.options.head = Head::kRegression;
  recipe.train.max_steps = 1;
  recipe.data.depth_units_per_metre = 100;
  const auto first_loss = [&](uint16_t sky, const std::string& name) {
    std::vector<uint16_t> depth(64 * 32, 1500);
    for (size_t i = 0; i < depth.size() / 3; ++i) depth[i] = sky;
    for (int i = 0; i < 4; ++i) write_png(folder / concat_text("depth/", i, ".png"), Image16{64, 32, depth});
    recipe.loss = named_loss(name);
    recipe.loss.target = DepthTarget::kTruth;
    const std::string run = concat_text(name, sky);
    train(recipe, into(folder / run));
    return read_run_log(folder / (run + "/metrics.jsonl")).steps.at(0).losses.at(0).second;
  };
  for (const char* name : {"baseline", "l1"}) EXPECT_EQ(first_loss(65535, name), first_loss(0, name)) << name;
}

// Whether the file loads and gives a finite map of an image that was trained on.
bool predicts(const std::string& weights, const std::string& image) {
  const std::unique_ptr<DepthModel> model = load_model(weights);
  model->eval();
  const DepthMap map = Predictor(*model, {.flip = false})(read_image(image));
  return std::all_of(map.values.begin(), map.values.end(), [](float value) { return std::isfinite(value); });
}

// A rate under which an update is not finite, and rates under which weights are, but no longer predict.
TEST(Trainer, AnUpdateThatIsNotFiniteReplacesNoCheckpoint) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  recipe.schedule.kind = Schedule::Kind::kConstant;
  train_until(2, recipe, into(folder / "run"));  // the end of the first epoch
  const std::string last = folder / "run/last.safetensors", image = folder / "images/0.png";
  const std::vector<uint8_t> good = read_bytes(last);
  EXPECT_TRUE(predicts(last, image));
  TrainOptions resumed = into(folder / "run");
  resumed.resume = true;
  recipe.schedule.lr = 1e38;
  const std::string message = message_of(recipe, resumed);
  EXPECT_EQ(message.rfind("step 3 (epoch 2): the update is not finite; images: images/", 0), 0u) << message;
  EXPECT_NE(message.find(") holds "), std::string::npos) << message;
  EXPECT_NE(message.find("last good checkpoint: " + last), std::string::npos) << message;
  EXPECT_EQ(read_bytes(last), good);

  recipe.train.max_steps = 1;
  for (const double lr : {1e18, 1e28, 1e36, 1e38}) {
    SCOPED_TRACE(lr);
    recipe.schedule.lr = lr;
    const std::string run = folder / concat_text("run", lr);
    const std::string outcome = message_of(recipe, into(run));
    for (const char* file : {"/last.safetensors", "/best.safetensors"}) {
      EXPECT_TRUE(!fs::exists(run + file) || predicts(run + file, image)) << outcome;
    }
    EXPECT_EQ(fs::exists(run + "/last.safetensors"), outcome == "trained") << outcome;
  }
}

// Running statistics may overflow where loss, gradient and update do not.
TEST(Trainer, RunningStatisticsThatAreNotFiniteAreNamed) {
  const TemporaryFolder folder;
  Recipe recipe = small_recipe(folder);
  const std::unique_ptr<DepthModel> model = make_model(recipe.model.name, recipe.model.options);
  model->initialize(1);
  for (const StateEntry& entry : model->state()) {
    if (entry.name != "backbone.conv1.conv.weight") continue;
    float* weight = entry.tensor->data<float>();
    for (int64_t i = 0; i < entry.tensor->numel(); ++i) weight[i] *= 3e19f;
  }
  recipe.model.weights = folder / "start.safetensors";
  save_model(recipe.model.weights, *model);
  const std::string message = message_of(recipe, into(folder / "run"));
  EXPECT_NE(message.find("not finite; images: images/"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder / "run/last.safetensors"));
}

TEST(Trainer, RefusesWhatCannotWork) {
  const TemporaryFolder folder;
  const Recipe good = small_recipe(folder);

  write_file(folder / "file", "");
  EXPECT_NE(message_of(good, into(folder / "file/run")).find("file"), std::string::npos);

  Recipe large = good;
  large.train.batch_size = 5;
  EXPECT_NE(message_of(large, into(folder / "large")).find("expected at least one batch of 5, found 4"),
            std::string::npos);

  Recipe odd = good;
  odd.augment.crop = {46, 32};
  EXPECT_NE(
      message_of(odd, into(folder / "odd")).find("augment.crop_width: expected a multiple of 4 for mobilenet_unet"),
      std::string::npos);
  odd.augment_on = false;
  odd.loss.top_rows = 32;
  EXPECT_NE(message_of(odd, into(folder / "odd")).find("list.txt:1: loss.top_rows: expected fewer than the 32 rows"),
            std::string::npos);

  Recipe rows = good;
  rows.loss.top_rows = 32;
  EXPECT_NE(message_of(rows, into(folder / "rows")).find("loss.top_rows"), std::string::npos);

  Recipe frame = good;
  frame.data.val = {"list.txt", ""};
  frame.eval.protocol = "kitti";
  EXPECT_NE(message_of(frame, into(folder / "frame")).find("list.txt:1: protocol: the KITTI frame needs at least"),
            std::string::npos);

  // The list that is scored at the end is looked at before anything begins.
  Recipe scored = good;
  scored.data.test = {"nowhere.txt", ""};
  EXPECT_NE(message_of(scored, into(folder / "scored")).find("nowhere.txt: expected a list"), std::string::npos);
  scored.data.test = {"list.txt", ""};
  scored.model.options.d_min = 79;
  EXPECT_NE(message_of(scored, into(folder / "scored")).find("expected ground truth that the protocol counts"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "scored"));

  TrainOptions nothing = into(folder / "nothing");
  nothing.resume = true;
  EXPECT_NE(message_of(good, nothing).find("expected last.safetensors to resume from"), std::string::npos);

  train(good, into(folder / "run"));
  TrainOptions resumed = into(folder / "run");
  resumed.resume = true;
  Recipe other = good;
  other.train.seed = 71;
  EXPECT_NE(message_of(other, resumed).find("seed 71"), std::string::npos) << message_of(other, resumed);
  other = good;
  other.model.options.bins = 34;
  EXPECT_NE(message_of(other, resumed).find("expected a checkpoint with bins 34, found 33"), std::string::npos);
}

}  // namespace
}  // namespace depthstill
