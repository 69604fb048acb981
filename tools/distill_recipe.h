// The table [distill] of a recipe, and what training reads by it.
#pragma once

#include <optional>
#include <string>

#include "engine/data/loader.h"
#include "tools/recipe.h"
#include "tools/settings.h"

namespace depthstill {

inline bool distills(const Recipe& recipe) { return recipe.loss_name == kDistillAnyDepthLoss; }

void bind_distill(Settings& settings, Recipe& recipe);
// Throws Error, which begins with `file`, for settings that contradict each other.
void check_distill(const Recipe& recipe, const std::string& file);

// The epochs of a run over `samples` images that are begun.
int64_t begun_epochs(const Recipe& recipe, int64_t samples);
// What decides the regions of a run, and which of them this teacher has: as regions.json states it.
RegionFolderSettings region_settings(const Recipe& recipe, const Dataset& data, size_t teacher);
std::vector<double> region_shares(const Recipe& recipe);
// The folder of a teacher's maps.
std::string teacher_folder(const Recipe& recipe, size_t teacher);
// The regions of a recipe that distils, their teachers opened; nothing for another one. Throws Error for a folder that
// is missing or holds labels of other regions.
std::optional<RegionLoading> region_loading(const Recipe& recipe, const Dataset& data);

}  // namespace depthstill
