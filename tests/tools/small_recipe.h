// The recipe of tests that train on the images of write_small_set(folder, count, 64, 32).
#pragma once

#include "tests/data/small_set.h"
#include "tools/recipe.h"

namespace depthstill::testing_files {

// Batches of two for two epochs; no file of an epoch is kept.
inline Recipe recipe_of_small_set(const TemporaryFolder& folder, double lr) {
  Recipe recipe;
  recipe.name = "small";
  recipe.model.options.bins = 33;
  recipe.model.options.decoder_widths = {32, 32, 64, 128};  // an eighth of the parameters, of the same layers
  recipe.loss.top_rows = 8;
  recipe.data.root = folder.path();
  recipe.data.depth_units_per_metre = 256;
  recipe.data.teacher_units_per_metre = 65535.0 / 80;
  recipe.data.train = {"list.txt", "teacher"};
  recipe.augment.crop = {48, 32};
  recipe.train.epochs = 2;
  recipe.train.batch_size = 2;
  recipe.train.checkpoint_keep = 0;
  recipe.optimiser.lr = recipe.schedule.lr = lr;
  return recipe;
}

}  // namespace depthstill::testing_files
