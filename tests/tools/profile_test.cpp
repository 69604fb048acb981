// `depthstill profile` and `depthstill bench KERNEL`: times that add up, work that is that of the op, tables and JSON.
#include "tools/bench/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/data/small_set.h"
#include "tools/bench/bench_kernels.h"

namespace depthstill {
namespace {

using testing_files::TemporaryFolder;

Recipe small_recipe() {
  Recipe recipe;
  recipe.name = "small";
  recipe.model.options.bins = 33;
  recipe.loss.top_rows = 12;
  recipe.augment.crop = {64, 48};
  recipe.train.batch_size = 2;
  return recipe;
}

const OpRow* find(const std::vector<OpRow>& rows, const std::string& layer, const std::string& op) {
  for (const OpRow& row : rows) {
    if (row.layer == layer && row.op == op) return &row;
  }
  return nullptr;
}

void expect_whole_step(const Profile& profile) {
  const std::vector<OpRow> rows = profile.table.rows();
  for (size_t i = 1; i < rows.size(); ++i) EXPECT_LE(rows[i].ms(), rows[i - 1].ms());
  EXPECT_GT(profile.table.ops_ms(), 0.7 * profile.table.step_ms());
  EXPECT_LE(profile.table.ops_ms(), profile.table.step_ms());
  for (const char* loss : {"loss/dpm", "loss/ssim"}) {
    const OpRow* row = find(rows, loss, std::string(loss).substr(5) + "_loss");
    ASSERT_NE(row, nullptr) << loss;
    EXPECT_GT(row->forward.ms, 0.0);
    EXPECT_GT(row->backward.ms, 0.0);
  }
  const OpRow* head = find(rows, "decode_head.conv_out.0", "conv2d");
  ASSERT_NE(head, nullptr);
  EXPECT_EQ(head->forward.work.flops, 2.0 * 2 * (48 - 12) * 64 * 128 * 33);  // work without the dead rows
  EXPECT_EQ(head->backward.work.flops, 2 * head->forward.work.flops);
  EXPECT_EQ(head->forward.calls, 1);
  ASSERT_NE(find(rows, "update/adamw", "adamw"), nullptr);
}

TEST(ProfileTraining, OpsAddUpToTheStep) {
  ProfileOptions options;
  options.random_data = true;
  options.first_step = 2;
  options.last_step = 4;
  const Profile profile = profile_training(small_recipe(), options);
  expect_whole_step(profile);
  EXPECT_GT(profile.peak.flops_per_s, 1e9);
  EXPECT_GT(profile.peak.copy_bytes_per_s, 1e8);

  const auto json = nlohmann::json::parse(table_json(profile.table, profile.peak).dump());
  EXPECT_EQ(json["rows"].size(), profile.table.rows().size());
  EXPECT_GT(json["step_ms"].get<double>(), 0.0);
  EXPECT_GT(json["rows"][0]["percent_of_bound"].get<double>(), 0.0);
  const std::string text = table_text(profile.table, profile.peak, 5);
  EXPECT_NE(text.find(" more "), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1 + 5 + 2 + 1);
}

TEST(ProfileTraining, ReadsTheRecipesData) {
  const TemporaryFolder folder;
  testing_files::write_small_set(folder, 4, 96, 64);
  Recipe recipe = small_recipe();
  recipe.data.root = folder.path();
  recipe.data.train = {"list.txt", "teacher"};
  ProfileOptions options;
  options.first_step = 2;
  options.last_step = 3;
  const Profile profile = profile_training(recipe, options);
  expect_whole_step(profile);
  const std::vector<OpRow> rows = profile.table.rows();
  const OpRow* preprocess = find(rows, "input/preprocess", "preprocess");
  ASSERT_NE(preprocess, nullptr);
  EXPECT_EQ(preprocess->forward.calls, 2 * 3);  // image, teacher and truth of two samples
}

TEST(BenchKernels, EveryKernelRunsAllItsPasses) {
  const std::vector<std::string> shapes = {
      "1x6x8x33",  "1x6x8x16",    "1x20x24", "1x6x8x4x5x3", "1x6x8x4x5", "1x6x8x4x2x1", "1x6x8x4x2x1", "2x6x8x4",
      "1x6x8x4",   "1x6x8x4x3x2", "2x12x16", "2x12x16",     "2x12x16",   "20x24",       "100",         "6x8x4",
      "1x12x16x2", "6x8",         "6x8",     "1x6x8x4",     "6x8",       "6x8"};
  const std::vector<std::string> kernels = bench_kernel_names();
  ASSERT_EQ(shapes.size(), kernels.size());
  KernelBenchOptions options;
  options.steps = 2;
  options.warmup = 0;
  for (size_t i = 0; i < kernels.size(); ++i) {
    options.shape = shapes[i];
    std::set<std::string> passes;
    for (const KernelTime& time : bench_kernel(kernels[i], options)) {
      passes.insert(time.pass);
      EXPECT_GT(time.work.bytes, 0.0) << time.kernel;
      EXPECT_LE(time.min_ms, time.median_ms) << time.kernel;
    }
    const std::set<std::string> whole{"forward", "backward"}, split{"forward", "dx", "dweight"};
    const bool one_way = kernels[i] == "preprocess" || kernels[i] == "adamw" || kernels[i] == "context_statistics";
    EXPECT_TRUE(one_way ? passes.size() == 1 : passes == whole || passes == split) << kernels[i];
  }
}

TEST(BenchKernels, AWrongShapeNamesWhatIsExpected) {
  KernelBenchOptions options;
  options.shape = "1x2x";
  try {
    bench_kernel("ssim", options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "--shape: expected NxHxW for ssim, got '1x2x'");
  }
}

}  // namespace
}  // namespace depthstill
