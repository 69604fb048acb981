// A model's depth maps over a data set, in the files that a recipe's training reads as its teacher's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "engine/data/dataset.h"
#include "models/predictor.h"
#include "tools/output_plan.h"

namespace depthstill {

struct TeachOptions {
  // Above 1, an image is also predicted in tiles x tiles overlapping windows, each at the network's own resolution. A
  // window is fitted to the whole image's map by scale and shift (least squares; metric models keep their metres), and
  // windows are blended linearly towards their edges.
  int tiles = 1;
  double overlap = 0.25;   // share of a window's side
  bool half = false;       // .npy as '<f2'
  bool overwrite = false;  // if false, maps that exist are kept: a run that was interrupted goes on
};

struct TeachReport {
  int64_t written = 0, kept = 0;
  int64_t clipped = 0;  // written, with values that the file could not hold; each was logged
};

// What teach() reads of the set, and writes for it; ground truth counts as read. The folder of the maps is the plan's.
// Throws Error if the set has no teacher maps that can be written.
OutputPlan plan_teacher_maps(const Dataset& data, Existing existing);

// Writes teacher_path() of every image of the set. Throws Error, before it begins, where metres need a focal length
// that the list does not have. A file is written whole or not at all. `progress` is called before each image and after
// the last, with the images done; what it throws ends the work.
TeachReport teach(const Dataset& data, const Predictor& predictor, const TeachOptions& options,
                  const std::function<void(int64_t done, int64_t total)>& progress);

// The map of one image as `options` say; errors begin with `name`. `focal`: as Predictor takes it.
DepthMap predict_tiled(const Predictor& predictor, const Image8& image, const TeachOptions& options,
                       const std::string& name = "image", double focal = 0);

}  // namespace depthstill
