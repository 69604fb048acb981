// The table [distill] of a recipe, and what training reads by it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/loader.h"
#include "models/dinov2.h"
#include "tools/recipe.h"
#include "tools/settings.h"

namespace depthstill {

inline bool distills(const Recipe& recipe) { return recipe.loss_name == kDistillAnyDepthLoss; }

void bind_distill(Settings& settings, Recipe& recipe);
// Throws Error, which begins with `file`, for settings that contradict each other.
void check_distill(const Recipe& recipe, const std::string& file);

// The settings of [distill] that decide what a step computes, and the part that is frozen: those that a run goes on
// with. Files of weights are in it by their contents.
Metadata distill_settings(const Recipe& recipe);

// A label that a teacher owes: of one sample in one epoch.
struct RegionTask {
  int64_t epoch = 0, index = 0;
  std::string path;  // of its file
};
// Those of this teacher in the order in which a run reads them, from the step behind `updates` on; a run that max_steps
// ends reads none behind its end. Throws Error if two of them have one file.
std::vector<RegionTask> region_tasks(const Recipe& recipe, const Dataset& data, size_t teacher, int64_t updates = 0);
// A line per folder of regions that lacks labels which a run from there on reads.
std::vector<std::string> missing_labels(const Recipe& recipe, const Dataset& data, const RegionLoading& regions,
                                        int64_t updates = 0);

// Whether this teacher is a network that runs beside the student: its entry ends as a file of weights does, and is a
// path from the current folder. Others are folders of stored labels.
bool is_online(const Recipe& recipe, size_t teacher);
// The files of the networks that make labels while a recipe that distils is trained.
std::vector<std::string> label_weights(const Recipe& recipe);
// These networks, in eval mode and on the device. What a teacher's weights leave open, the recipe.toml beside them says
// (load_network). Throws Error for a file that is missing or of something else, and for a teacher that cannot see
// distill.patch pixels.
LabelNetworks label_networks(const Recipe& recipe, Device device);
// What is drawn of the images: with patches if a loss reads them.
RegionSpec region_spec(const Recipe& recipe);
// What decides the regions of a run, and which of them this teacher has: as regions.json states it.
RegionFolderSettings region_settings(const Recipe& recipe, const Dataset& data, size_t teacher);
std::vector<double> region_shares(const Recipe& recipe);
// The folder of a teacher's maps.
std::string teacher_folder(const Recipe& recipe, size_t teacher);
// The regions of a recipe that distils, their teachers opened; nothing for another one. Throws Error for a folder or a
// file of weights that is missing, and for a folder that holds labels of other regions.
std::optional<RegionLoading> region_loading(const Recipe& recipe, const Dataset& data);

}  // namespace depthstill
