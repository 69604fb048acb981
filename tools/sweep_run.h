// One recipe trained with every combination of some settings, one run after another, into one table.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tools/recipe.h"
#include "tools/train_run.h"

namespace depthstill {

struct SweepOptions {
  std::string recipe;                  // path
  std::vector<std::string> overrides;  // "key=value", of all runs
  std::vector<std::string> over;       // "key=LIST": TOML values, or bare words, with commas between
  std::string out;                     // folder: one below it per run, and sweep.csv
  bool allow_outside = false;
  TrainOptions training;  // of each run; `out` and `resume` are the sweep's business
};

struct SweepRun {
  std::string name;                                         // of its folder: "lr=0.001,seed=2"
  std::vector<std::pair<std::string, std::string>> values;  // key and value, as TOML
  Recipe recipe;
};

// All combinations, the last key's values running fastest. Throws UsageError for a key that is no setting or stands
// twice, an empty list, two runs of one name, and a recipe without a list to choose by (select.on).
std::vector<SweepRun> plan_sweep(const SweepOptions& options);

// Trains what is not done yet; a run that an earlier call began is resumed, a finished one kept. After each run
// sweep.csv is written anew:
//   run, state (done, failed or waiting), a column per key, epoch (the kept one), steps, and the nine metrics of that
// epoch. A run that fails is named and the others go on; the sweep then ends with an Error. `print` gets the table at
// the end. Throws UsageError before the first run for a folder that holds something else, or a run by another recipe;
// Interrupted after SIGINT or SIGTERM: the same call goes on.
void run_sweep(const SweepOptions& options, const std::function<void(const std::string&)>& print);

}  // namespace depthstill
