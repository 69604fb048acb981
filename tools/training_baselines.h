// The baselines of a recipe's training list, which a run folder keeps in baselines.json: the list is read once.
#pragma once

#include <optional>
#include <string>

#include "engine/eval/baselines.h"
#include "tools/recipe.h"

namespace depthstill {

inline constexpr const char* kBaselinesFile = "baselines.json";

// The baselines under `protocol`, from `folder`/baselines.json where that was measured on this very list (by its
// checksum) and in this way, else measured; with `keep` they are then written there. Nothing, with a line in the log
// that says why, if the recipe's training list or its maps cannot be read. An empty folder keeps nothing.
std::optional<Baselines> training_baselines(const Recipe& recipe, const Protocol& protocol, const std::string& folder,
                                            bool keep);

// The files of the recipe's training list that the measurement reads; nothing if the list cannot be read.
std::optional<Dataset> training_files(const Recipe& recipe);

}  // namespace depthstill
