// The recipes of tools/recipes: each loads, and says what its row of a paper's table says.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "engine/io/text_file.h"
#include "tests/io/test_files.h"
#include "tools/recipe.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::error_of;
using testing_files::TemporaryFolder;

const fs::path kFolder = fs::path(DEPTHSTILL_SOURCE_DIR) / "tools" / "recipes";
const std::string kLater = "dpt_beit_large_512", kStandIn = "midas_small";  // a student that is not here yet

// Every shipped recipe loads, and says what its row of the paper says.
TEST(ShippedRecipes, Load) {
  int count = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(kFolder)) {
    if (entry.path().extension() != ".toml") continue;
    ++count;
    const std::string name = entry.path().stem().string();
    SCOPED_TRACE(name);
    if (read_text(entry.path().string()).find("name = \"" + kLater) != std::string::npos) {
      const std::string message = error_of([&] { load_recipe(entry.path().string()); });
      EXPECT_NE(message.find("'model.name': expected one of "), std::string::npos) << message;
      EXPECT_TRUE(message.ends_with("found '" + kLater + "'")) << message;
      continue;
    }
    Recipe recipe;
    ASSERT_NO_THROW(recipe = load_recipe(entry.path().string()));
    for (const char* teacher : {"adabins", "bts", "depthformer"}) {
      if (!name.ends_with(teacher)) continue;
      EXPECT_EQ(recipe.data.train.teacher, std::string("gt_kd_") + teacher);
    }
    if (name.starts_with("res_kd") || name.starts_with("baseline")) {
      EXPECT_EQ(recipe.model.options.head, Head::kRegression);
      EXPECT_EQ(recipe.loss.top_rows, 0);
    }
    const bool kitti = recipe.eval.protocol == "kitti";
    if (kitti && recipe.data.resize_height == 0) {
      EXPECT_EQ(recipe.augment.crop, (ImageSize{704, 352}));
      EXPECT_EQ(recipe.data.depth_units_per_metre, 256);
      EXPECT_EQ(recipe.loss.top_rows, name.starts_with("res_kd") || name.starts_with("baseline") ? 0 : 110);
    }
  }
  EXPECT_GE(count, 60);
}

TEST(ShippedRecipes, TieKdIsThePaper) {
  const Recipe recipe = load_recipe((kFolder / "tie_kd_adabins.toml").string());
  EXPECT_EQ(recipe.model.name, "mobilenet_unet");
  EXPECT_EQ(recipe.model.options.bins, 257);
  EXPECT_FLOAT_EQ(recipe.loss.weights["dpm"], 1.0f);
  EXPECT_FLOAT_EQ(recipe.loss.weights["ssim"], 9.0f);
  EXPECT_EQ(recipe.loss.dpm.sigma, 0.8f);
  EXPECT_EQ(recipe.loss.top_rows, 110);
  EXPECT_EQ(recipe.loss.dpm.kl, KlDirection::kTeacherStudent);
  EXPECT_EQ(recipe.train.epochs, 24);
  EXPECT_EQ(recipe.train.batch_size, 32);
  EXPECT_EQ(recipe.optimiser.params.beta1, 0.95f);
  EXPECT_EQ(recipe.schedule.kind, Schedule::Kind::kOneCycle);
  EXPECT_EQ(recipe.augment.crop, (ImageSize{704, 352}));
  EXPECT_EQ(recipe.select.on, "val");
  EXPECT_STREQ(protocol_of(recipe).box->name, "garg");
  const Recipe published = load_recipe((kFolder / "tie_kd_as_published.toml").string());
  EXPECT_EQ(published.loss.dpm.target, DpmTarget::kSoftmaxPdf);
  EXPECT_EQ(published.select.on, "test");
  EXPECT_FALSE(published.augment.rotate_teacher);
}

// What tells a row of Distill Any Depth's tables from the others; all else is dad_base.toml's.
struct DadRow {
  std::string name;
  ContextNorm norm, patch_norm;
  float sc, lg;
  bool centred;
  std::string student;
  int size, patch, least;
  std::vector<std::string> teachers;
};

// Another student stands in for the one that is not here yet, so that the rest of the file is read.
Recipe load_row(const std::string& name) {
  const std::string path = (kFolder / ("dad_" + name + ".toml")).string();
  std::string text = read_text(path);
  const std::string student = "name = \"" + kLater, base = "dad_base.toml\"\n";
  const size_t at = text.find(student);
  if (at == std::string::npos) return load_recipe(path);
  text.replace(at, student.size(), "name = \"" + kStandIn);
  text.insert(text.find("inherit = \"" + base) + 11, kFolder.string() + '/');
  const TemporaryFolder folder;
  std::ofstream(folder / "row.toml") << text;
  return load_recipe(folder / "row.toml");
}

TEST(ShippedRecipes, DistillAnyDepthIsThePaper) {
  using enum ContextNorm;
  const std::vector<std::string> dal = {"depth_anything_v2_vitl.pth"}, midasl = {"dpt_beit_large_512.pt"};
  const std::vector<DadRow> rows = {
      {"base", kHybrid, kHybrid, 1, 0.5f, false, "dpt_l", 560, 560, 644, dal},
      {"t1_shared_global", kGlobal, kHybrid, 1, 0, false, "dpt_l", 560, 560, 644, dal},
      {"t1_shared_none", kNone, kHybrid, 1, 0, false, "dpt_l", 560, 560, 644, dal},
      {"t1_shared_local", kLocal, kHybrid, 1, 0, false, "dpt_l", 560, 560, 644, dal},
      {"t1_shared_hybrid", kHybrid, kHybrid, 1, 0, false, "dpt_l", 560, 560, 644, dal},
      {"t1_patches_global", kNone, kGlobal, 1, 0.5f, false, "dpt_l", 560, 560, 644, dal},
      {"t1_patches_none", kNone, kNone, 1, 0.5f, false, "dpt_l", 560, 560, 644, dal},
      {"t1_patches_local", kNone, kLocal, 1, 0.5f, false, "dpt_l", 560, 560, 644, dal},
      {"t1_patches_hybrid", kNone, kHybrid, 1, 0.5f, false, "dpt_l", 560, 560, 644, dal},
      {"t2_neither", kGlobal, kHybrid, 1, 0, true, "dpt_l", 560, 560, 644, dal},
      {"t2_patches", kHybrid, kHybrid, 0, 0.5f, false, "dpt_l", 560, 560, 644, dal},
      {"t2_shared", kHybrid, kHybrid, 1, 0, false, "dpt_l", 560, 560, 644, dal},
      {"t2_both", kHybrid, kHybrid, 1, 0.5f, false, "dpt_l", 560, 560, 644, dal},
      {"t3_dal_das_base", kGlobal, kHybrid, 1, 0, true, "dpt_s", 560, 560, 644, dal},
      {"t3_dal_das_ours", kHybrid, kHybrid, 1, 0.5f, false, "dpt_s", 560, 560, 644, dal},
      {"t3_dal_midasl_base", kGlobal, kHybrid, 1, 0, true, kLater, 512, 560, 644, dal},
      {"t3_dal_midasl_ours", kHybrid, kHybrid, 1, 0.5f, false, kLater, 512, 560, 644, dal},
      {"t3_midasl_midass_base", kGlobal, kHybrid, 1, 0, true, "midas_small", 256, 512, 589, midasl},
      {"t3_midasl_midass_ours", kHybrid, kHybrid, 1, 0.5f, false, "midas_small", 256, 512, 589, midasl},
      {"t4_multi_teacher", kHybrid, kHybrid, 1, 0.5f, false, "dpt_l", 560, 560, 644, {dal[0], "regions_genpercept"}},
      {"t5_dav2", kHybrid, kHybrid, 1, 0.5f, false, "dpt_l", 560, 560, 644, dal},
      {"t5_midas", kHybrid, kHybrid, 1, 0.5f, false, kLater, 512, 512, 589, midasl},
  };
  for (const DadRow& row : rows) {
    SCOPED_TRACE(row.name);
    const Recipe recipe = load_row(row.name);
    const DistillOptions& losses = recipe.distill;
    const RegionSpec& spec = recipe.regions.spec;
    const bool many = row.name[1] == '4' || row.name[1] == '5', several = row.teachers.size() > 1;
    const bool features = recipe.model.name.starts_with("dpt");
    EXPECT_EQ(losses.norm, row.norm);
    EXPECT_EQ(losses.patch_norm, row.patch_norm);
    EXPECT_EQ(std::pair(losses.lambda_sc, losses.lambda_lg), std::pair(row.sc, row.lg));
    EXPECT_EQ(std::pair(losses.lambda_feat, losses.lambda_grad), std::pair(1.0f, 2.0f));
    EXPECT_EQ(spec.centred, row.centred);
    EXPECT_EQ(recipe.model.name, row.student == kLater ? kStandIn : row.student);
    EXPECT_EQ(recipe.features,
              features ? std::string("dinov2_vit") + recipe.model.name.back() + "14_pretrain.pth" : std::string());
    EXPECT_FALSE(recipe.model.weights.empty());
    EXPECT_EQ(recipe.model.parts, row.name.starts_with("t5") ? InitialParts::kEncoder : InitialParts::kAll);
    EXPECT_EQ((std::vector<int>{recipe.regions.size, spec.patch, spec.least}),
              (std::vector<int>{row.size, row.patch, row.least}));
    EXPECT_EQ(recipe.regions.teachers, row.teachers);
    EXPECT_EQ(recipe.regions.shares, several ? std::vector<double>({0.7, 0.3}) : std::vector<double>());
    EXPECT_EQ(recipe.train.batch_size, many ? 8 : 4);
    EXPECT_EQ(recipe.train.max_steps, 20000);
    EXPECT_EQ(recipe.data.train.list, many ? "sa1b_200k.txt" : "sa1b_50k.txt");
    EXPECT_EQ(recipe.optimiser.lr, 5e-5);
  }
}

// The rows of the tables name their recipes, each one once.
TEST(ShippedRecipes, AreNamedBesideTheRowsOfTheTables) {
  const std::string tables = read_text(DEPTHSTILL_SOURCE_DIR "/tools/tables/distill_any_depth.toml");
  std::set<std::string> named, files;
  for (size_t at = 0; (at = tables.find("# dad_", at)) != std::string::npos; ++at) {
    EXPECT_TRUE(named.insert(tables.substr(at + 2, tables.find('\n', at) - at - 2)).second);
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(kFolder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("dad_t")) files.insert(name);
  }
  EXPECT_EQ(named, files);
}

}  // namespace
}  // namespace depthstill
