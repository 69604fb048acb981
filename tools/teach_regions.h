// Labels of the regions that a run of a recipe draws, made by a network or, from a list, by any other program.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/data/region.h"
#include "models/depth_model.h"
#include "tools/output_plan.h"
#include "tools/recipe.h"

namespace depthstill {

// A label that a teacher owes: of one sample in one epoch.
struct RegionTask {
  int64_t epoch = 0, index = 0;
  std::string path;  // of its file
};

// Those of this teacher in the order in which a run reads them; a run that max_steps ends reads none behind its end.
std::vector<RegionTask> region_tasks(const Recipe& recipe, const Dataset& data, size_t teacher);

struct RegionTeachOptions {
  size_t teacher = 0;  // an index into distill.teachers
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;
  bool overwrite = false;  // if false, labels that exist are kept
};

struct RegionTeachReport {
  int64_t written = 0, kept = 0;
};

// Writes them as (1, patch, patch) in half precision, and regions.json. Throws Error that names the file for a value
// that half precision cannot hold; and before anything is written, if the folder holds labels of other regions or of
// another teacher. `weights`: the file of the teacher's network.
RegionTeachReport teach_regions(const Recipe& recipe, const Dataset& data, const DepthModel& teacher,
                                const std::string& weights, const RegionTeachOptions& options,
                                const std::function<void(int64_t done, int64_t total)>& progress);

// Writes regions.json, and to `path` a CSV of a line per label: image, epoch, top, left, side, scaled, mirrored, file.
void list_regions(const Recipe& recipe, const Dataset& data, size_t teacher, const std::string& path,
                  const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace depthstill
