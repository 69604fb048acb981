// The baselines of a run: measured once per list, kept in its folder, never a reason to fail.
#include "tools/training_baselines.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/io/text_file.h"
#include "tests/tools/small_recipe.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::TemporaryFolder;

Recipe recipe_in(const TemporaryFolder& folder) {
  testing_files::write_small_set(folder, 3, 16, 8);
  return testing_files::recipe_of_small_set(folder, 1e-4);
}

std::optional<Baselines> measure(const Recipe& recipe, const std::string& folder, bool keep, std::string* said) {
  testing::internal::CaptureStderr();
  auto found = training_baselines(recipe, protocol_of(recipe), folder, keep);
  *said = testing::internal::GetCapturedStderr();
  return found;
}

TEST(TrainingBaselines, AreMeasuredOncePerList) {
  const TemporaryFolder folder;
  const Recipe recipe = recipe_in(folder);
  fs::create_directories(folder / "run");
  const std::string run = folder / "run", kept = folder / "run/baselines.json";
  std::string said;
  const auto first = measure(recipe, run, false, &said);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->images, 3);
  EXPECT_EQ(first->each.at(1).rows.size(), 8u);
  EXPECT_FALSE(fs::exists(kept)) << "eval writes nothing beside weights";
  measure(recipe, run, true, &said);
  ASSERT_TRUE(fs::exists(kept));

  fs::rename(folder / "depth", folder / "moved");  // the list alone tells that it is the same
  const auto again = measure(recipe, run, false, &said);
  ASSERT_TRUE(again) << said;
  EXPECT_EQ(again->each[0].rows, first->each[0].rows);
  EXPECT_EQ(again->each[1].rows, first->each[1].rows);
  EXPECT_EQ(again->list, "list.txt");

  Protocol other = protocol_of(recipe);
  other.max_depth = 9;
  testing::internal::CaptureStderr();
  EXPECT_FALSE(training_baselines(recipe, other, run, true)) << "measured otherwise, and the maps are gone";
  EXPECT_NE(testing::internal::GetCapturedStderr().find("note: no baselines beside the figures: "), std::string::npos);
  fs::rename(folder / "moved", folder / "depth");
  write_file(folder / "list.txt", "images/0.png depth/0.png\n");
  EXPECT_EQ(measure(recipe, run, true, &said)->images, 1) << "another list";
}

TEST(TrainingBaselines, ADamagedFileIsMeasuredAnew) {
  const TemporaryFolder folder;
  const Recipe recipe = recipe_in(folder);
  std::string said;
  const auto first = measure(recipe, folder.path(), true, &said);
  const std::string good = read_text(folder / "baselines.json");
  auto no_rows = nlohmann::json::parse(good);
  no_rows["baselines"][0]["rows"] = nlohmann::json::array();
  for (const std::string& text : {std::string("{"), std::string("[]"), good.substr(0, 90), no_rows.dump()}) {
    write_file(folder / "baselines.json", text);
    const auto found = measure(recipe, folder.path(), true, &said);
    ASSERT_TRUE(found) << text << said;
    EXPECT_EQ(found->each[1].rows, first->each[1].rows) << text;
  }
  EXPECT_EQ(read_text(folder / "baselines.json"), good);
}

TEST(TrainingBaselines, WithoutATrainingListThereIsANote) {
  const TemporaryFolder folder;
  Recipe recipe = recipe_in(folder);
  recipe.data.train.list = "gone.txt";
  std::string said;
  EXPECT_FALSE(measure(recipe, "", false, &said));
  EXPECT_NE(said.find("gone.txt: expected a list, found no such file"), std::string::npos) << said;
  EXPECT_FALSE(training_files(recipe));
  recipe.data.train.list = "";
  EXPECT_FALSE(measure(recipe, "", false, &said));
  EXPECT_EQ(said.find("note: no baselines beside the figures: recipe small: "), 0u) << said;
}

}  // namespace
}  // namespace depthstill
