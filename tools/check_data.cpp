// depthstill check-data: tools/data_check.h on the command line.
#include <algorithm>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>

#include "tools/args.h"
#include "tools/data_check.h"
#include "tools/distill_recipe.h"
#include "tools/progress.h"
#include "tools/recipe.h"

namespace depthstill {
namespace {

struct CheckDataArgs {
  std::string recipe, data;
  std::vector<std::string> overrides;
  int shown = 50;
  bool allow_outside = false;
};

int run_check_data(const CheckDataArgs& args) {
  std::vector<std::string> overrides = args.overrides;
  if (!args.data.empty()) overrides.push_back("data.root=" + toml_quoted(args.data));
  Recipe recipe = load_recipe(args.recipe, overrides);
  recipe.data.allow_outside = args.allow_outside;
  const std::string split = report_split(recipe);
  std::optional<DatasetSpec> scored;
  if (!split.empty()) scored = dataset_spec(recipe, split);

  CheckOptions options;
  options.training = needs_of(recipe);
  if (distills(recipe)) options.distilled = &recipe;
  options.protocol = protocol_of(recipe);
  if (split == "test") options.scored = split;
  options.max_problems_shown = args.shown;
  std::optional<Progress> progress;
  std::mutex mutex;
  int64_t shown = 0;
  bool finished = true;  // the list before; the threads may report out of order
  options.progress = [&](int64_t done, int64_t total) {
    const std::lock_guard lock(mutex);
    if (finished) {
      progress.emplace("check", "img", total);
      shown = 0;
    }
    shown = std::max(shown, done);
    finished = shown == total;
    progress->update(shown);
  };
  return check_data(dataset_spec(recipe, "train"), scored ? &*scored : nullptr, options, std::cout);
}

}  // namespace

void add_check_data_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<CheckDataArgs>();
  CLI::App* command = app.add_subcommand(
      "check-data", "Read a recipe's data once and report what is there and what would stop training");
  command->add_option("recipe", args->recipe, "TOML recipe")->required();
  command->add_option("--data", args->data, "root of the data set, in place of the recipe's data.root");
  add_allow_outside(*command, args->allow_outside);
  command->add_option("--set", args->overrides, "override a setting of the recipe, KEY=VALUE; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_option("--show", args->shown, "problems shown for each list; the rest is counted")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->callback([args, &run] { run = [args] { return run_check_data(*args); }; });
}

}  // namespace depthstill
