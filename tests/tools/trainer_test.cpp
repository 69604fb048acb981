// Whole training runs on a few small images: resuming, interruption, memory, and what stops a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <vector>

#include "engine/allocator.h"
#include "engine/io/safetensors.h"
#include "engine/io/text_file.h"
#include "tests/tools/small_recipe.h"
#include "tools/interrupt.h"
#include "tools/report/run_log.h"
#include "tools/train_run.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::TemporaryFolder;

// Four 64x32 images, batches of two: two steps an epoch.
Recipe small_recipe(const TemporaryFolder& folder) {
  testing_files::write_small_set(folder, 4, 64, 32);
  Recipe recipe = testing_files::recipe_of_small_set(folder, 1e-4);
  recipe.train.checkpoint_keep = 1;
  return recipe;
}

TrainOptions into(const std::string& out) {
  TrainOptions options;
  options.out = out;
  return options;
}

// Tensors of a checkpoint, byte for byte.
void expect_same_files(const std::string& a, const std::string& b) {
  const SafetensorsFile first(a), second(b);
  ASSERT_EQ(first.tensors().size(), second.tensors().size());
  for (const StoredTensor& tensor : first.tensors()) {
    const auto x = first.bytes(tensor), y = second.bytes(second.at(tensor.name));
    ASSERT_EQ(x.size(), y.size()) << tensor.name;
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin())) << tensor.name;
  }
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

  install_interrupt_handlers();
  TrainOptions options = into(folder / "halves");
  options.on_step = [](int64_t updates) {
    if (updates == 3) std::raise(SIGTERM);  // the middle of the second epoch
  };
  EXPECT_THROW(train(recipe, options), Interrupted);
  clear_interrupt();
  options.on_step = nullptr;
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
  const std::string report = read_text(folder / "run/report.html");
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
  install_interrupt_handlers();
  half.on_step = [](int64_t updates) {
    if (updates == 3) std::raise(SIGTERM);
  };
  EXPECT_THROW(train(recipe, half), Interrupted);
  clear_interrupt();
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
  EXPECT_EQ(message.find('\n'), std::string::npos);
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

  Recipe rows = good;
  rows.loss.top_rows = 32;
  EXPECT_NE(message_of(rows, into(folder / "rows")).find("loss.top_rows"), std::string::npos);

  Recipe frame = good;
  frame.data.val = {"list.txt", ""};
  frame.eval.protocol = "kitti";
  EXPECT_NE(message_of(frame, into(folder / "frame")).find("list.txt:1: protocol: the KITTI frame needs at least"),
            std::string::npos);

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
