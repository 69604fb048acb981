#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "engine/io/atomic_file.h"
#include "engine/io/text_file.h"
#include "kernels/core/parallel.h"
#include "tests/tools/small_recipe.h"
#include "tools/interrupt.h"
#include "tools/sweep_run.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::error_of;
using testing_files::TemporaryFolder;

// A recipe of two steps on four 64x32 images, in a file.
class SweepTest : public testing::Test {
 protected:
  void SetUp() override {
    set_num_threads(1);  // what a small image has to do is less than waking threads
    testing_files::write_small_set(folder_, 4, 64, 32);
    Recipe recipe = testing_files::recipe_of_small_set(folder_, 1e-4);
    recipe.train.epochs = recipe.train.checkpoint_keep = 1;
    recipe.data.val = recipe.data.train;
    recipe.eval.flip = false;
    write_file(folder_ / "small.toml", print_recipe(recipe));
    options_.recipe = folder_ / "small.toml";
    options_.out = folder_ / "sweep";
  }

  void TearDown() override { set_num_threads(threads_); }

  std::string table() { return read_text(options_.out + "/sweep.csv"); }

  const int threads_ = num_threads();
  TemporaryFolder folder_;
  SweepOptions options_;
};

TEST_F(SweepTest, EveryCombinationIsPlannedInOrder) {
  options_.over = {"optimiser.lr=1e-3,2e-3", "train.seed=[1, 2]"};
  const std::vector<SweepRun> runs = plan_sweep(options_);
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[0].name, "optimiser.lr=0.001,train.seed=1");
  EXPECT_EQ(runs[1].name, "optimiser.lr=0.001,train.seed=2");
  EXPECT_EQ(runs[3].name, "optimiser.lr=0.002,train.seed=2");
  EXPECT_EQ(runs[3].recipe.train.seed, 2u);
  EXPECT_DOUBLE_EQ(runs[3].recipe.optimiser.lr, 2e-3);
  options_.over = {"select.metric=abs_rel,d1"};  // bare words
  EXPECT_EQ(plan_sweep(options_)[1].recipe.select.metric, "d1");
}

TEST_F(SweepTest, WhatIsNoSweepIsRefused) {
  const auto error = [&](std::vector<std::string> over) {
    options_.over = std::move(over);
    return error_of([&] { plan_sweep(options_); });
  };
  EXPECT_EQ(error({}), "sweep: expected --over KEY=LIST, got none");
  EXPECT_EQ(error({"train.seed"}), "sweep: expected --over KEY=LIST, got 'train.seed'");
  EXPECT_EQ(error({"train.seed="}), "sweep: expected values for train.seed, got none");
  EXPECT_EQ(error({"train.seed=1", "train.seed=2"}), "sweep: expected --over train.seed once, got it twice");
  EXPECT_EQ(error({"train.seed=1,1"}), "sweep: expected runs of different names, got two of train.seed=1");
  EXPECT_NE(error({"train.sed=1"}).find("did you mean 'train.seed'"), std::string::npos);
  options_.overrides = {"select.on=test"};
  EXPECT_NE(error({"train.seed=1"}).find("expected data.test.list, by which"), std::string::npos);
}

TEST_F(SweepTest, FoldersOfOthersAreLeftAlone) {
  options_.over = {"train.seed=1"};
  make_folder(options_.out);
  write_file(options_.out + "/notes.txt", "mine");
  EXPECT_EQ(error_of([&] { run_sweep(options_, {}); }),
            options_.out + ": expected an empty folder or that of a sweep, found something else; give another --out");
  write_file(options_.out + "/sweep.csv", "run,state\n");
  make_folder(options_.out + "/train.seed=1");
  write_file(options_.out + "/train.seed=1/recipe.toml", "another = 1\n");
  EXPECT_EQ(
      error_of([&] { run_sweep(options_, {}); }),
      options_.out + "/train.seed=1/recipe.toml: expected the recipe of this sweep, found another; give another --out");
  EXPECT_EQ(table(), "run,state\n");
}

// Stopped in its second run, a sweep goes on there and ends with the table that it would have had.
TEST_F(SweepTest, GoesOnWhereItWasStopped) {
  options_.over = {"optimiser.lr=1e-3,5e-4", "train.seed=1"};
  int64_t steps = 0;
  install_interrupt_handlers();
  options_.training.on_step = [&](int64_t) {
    if (++steps == 3) std::raise(SIGTERM);
  };
  EXPECT_THROW(run_sweep(options_, {}), Interrupted);
  clear_interrupt();
  const std::string first = options_.out + "/optimiser.lr=0.001,train.seed=1/";
  EXPECT_TRUE(fs::exists(first + "report.html"));
  const auto written = fs::last_write_time(first + "report.html");
  EXPECT_NE(table().find("\"optimiser.lr=0.001,train.seed=1\",done,0.001,1,1,2,"), std::string::npos) << table();
  EXPECT_NE(table().find("\"optimiser.lr=5e-04,train.seed=1\",waiting,5e-04,1,,,"), std::string::npos) << table();

  write_file(first + "recipe.toml", "# by another version\n" + read_text(first + "recipe.toml"));
  std::string text;
  const auto keep = [&](const std::string& printed) { text = printed; };
  run_sweep(options_, keep);
  EXPECT_EQ(steps, 4) << "the finished run was trained anew, or the stopped one from its start";
  EXPECT_EQ(fs::last_write_time(first + "report.html"), written);
  EXPECT_NE(text.find("  best d1\n"), std::string::npos) << text;

  const std::string resumed = table();
  SweepOptions whole = options_;
  whole.out = folder_ / "whole";
  run_sweep(whole, keep);
  EXPECT_EQ(read_text(whole.out + "/sweep.csv"), resumed);
}

TEST_F(SweepTest, OneFailureDoesNotStopTheOthers) {
  options_.over = {"train.seed=1,2"};
  make_folder(options_.out);
  write_file(options_.out + "/sweep.csv", "run,state\n");
  make_folder(options_.out + "/train.seed=1");
  write_file(options_.out + "/train.seed=1/notes.txt", "mine");
  const std::string error = error_of([&] { run_sweep(options_, [](const std::string&) {}); });
  EXPECT_NE(error.find("1 of 2 runs failed, the first: "), std::string::npos) << error;
  EXPECT_NE(table().find("\"train.seed=1\",failed,"), std::string::npos);
  EXPECT_NE(table().find("\"train.seed=2\",done,"), std::string::npos);
}

}  // namespace
}  // namespace depthstill
