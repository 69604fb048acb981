// Reads every file of a data set once and says what is there and what would stop a training run.
#pragma once

#include <functional>
#include <optional>
#include <ostream>

#include "engine/data/dataset.h"
#include "engine/eval/protocol.h"

namespace depthstill {

struct CheckOptions {
  std::optional<ImageSize> crop;                              // the training crop, which every sample must hold
  std::optional<Protocol> protocol;                           // protocol whose frame every validation image must hold
  int max_problems_shown = 50;                                // problems of each list; the rest is counted
  std::function<void(int64_t done, int64_t total)> progress;  // several threads call it; it may be empty
};

// Reports counts, image sizes, depth ranges and shares of valid pixels of both sets, and each missing, unreadable or
// mismatched file with its list line. Returns 0 if training would run and 1 if not. validation may be null.
int check_data(const DatasetSpec& train, const DatasetSpec* validation, const CheckOptions& options, std::ostream& out);

}  // namespace depthstill
