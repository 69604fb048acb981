// Runs of Distill Any Depth on a few small images, and teachers for them.
#pragma once

#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include "models/model_file.h"
#include "models/model_table.h"
#include "tests/tools/small_recipe.h"
#include "tools/data_check.h"
#include "tools/distill_recipe.h"
#include "tools/teach_regions.h"

namespace depthstill::testing_runs {

// Four 96 x 72 images in batches of two; squares of at least 40 pixels, seen as 32.
inline Recipe recipe_of(const testing_files::TemporaryFolder& folder) {
  testing_files::write_small_set(folder, 4, 96, 72);
  Recipe recipe = testing_files::recipe_of_small_set(folder, 1e-3);
  recipe.name = "regions";
  recipe.model.name = "mobilenet_unet_small";
  recipe.model.options = {.head = Head::kRelative};
  recipe.loss_name = kDistillAnyDepthLoss;
  recipe.loss = {};
  recipe.data.train.teacher = "";
  recipe.regions.spec = {.patch = 32, .least = 40, .patches = 0, .flip_probability = 0.5};
  recipe.distill.lambda_lg = 0;  // whole maps have no patches
  recipe.regions.size = 32;
  recipe.regions.teachers = {"teacher"};
  recipe.regions.unstated = Quantity::kDepth;
  return recipe;
}

// A network of random weights as a teacher, in a file.
inline std::unique_ptr<DepthModel> write_teacher(const std::string& path, uint64_t seed, Head head = Head::kRelative) {
  auto model = make_model("mobilenet_unet_small", {.head = head});
  model->initialize(seed);
  model->eval();
  save_model(path, *model);
  return model;
}

inline RegionTeachReport teach_all(const Recipe& recipe, size_t teacher, const DepthModel& network,
                                   const std::string& file) {
  RegionTeachOptions options;
  options.teacher = teacher;
  return teach_regions(recipe, Dataset(dataset_spec(recipe, "train")), network, file, options, [](int64_t, int64_t) {});
}

// What check-data says of a recipe: its result and its text.
inline std::pair<int, std::string> checked(const Recipe& recipe) {
  CheckOptions options;
  options.training = needs_of(recipe);
  options.distilled = &recipe;
  std::ostringstream out;
  const int result = check_data(dataset_spec(recipe, "train"), nullptr, options, out);
  return {result, out.str()};
}

}  // namespace depthstill::testing_runs
