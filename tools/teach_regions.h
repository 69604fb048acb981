// Labels of the regions that a run of a recipe draws, made by a network or, from a list, by any other program.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/depth_model.h"
#include "tools/distill_recipe.h"

namespace depthstill {

struct RegionTeachOptions {
  size_t teacher = 0;  // an index into distill.teachers
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;
  bool overwrite = false;  // if false, labels that exist are kept
};

struct RegionTeachReport {
  int64_t written = 0, kept = 0;
};

// Writes them as (1 + patches, patch, patch), the region first, in half precision, and regions.json: labels_of()
// (models/sky_rule.h). Throws Error that names the list's line for a map that is not finite, and the file for a value
// that half precision cannot hold; and before anything is written, if the folder holds labels of other regions, of
// another teacher or precision, or other files. `weights`: the file of the teacher's network.
RegionTeachReport teach_regions(const Recipe& recipe, const Dataset& data, const DepthModel& teacher,
                                const std::string& weights, const RegionTeachOptions& options,
                                const std::function<void(int64_t done, int64_t total)>& progress);

// Writes regions.json, and to `path` a CSV of a line per label: image, epoch, top, left, side, scaled, mirrored,
// virtual, patches, file. Places are pixels of the stored image, before data.crop; those of patches, "row:column
// row:column", pixels of the mirrored region at `virtual` pixels a side.
void list_regions(const Recipe& recipe, const Dataset& data, size_t teacher, const std::string& path,
                  const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace depthstill
