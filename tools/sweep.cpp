// depthstill sweep: trains a recipe with every combination of some settings.
#include <cstdio>
#include <memory>

#include "tools/args.h"
#include "tools/sweep_run.h"

namespace depthstill {
namespace {

struct SweepArgs {
  SweepOptions sweep;
  std::string data;
  ComputeArgs compute;
};

int run_sweep_command(const SweepArgs& args) {
  SweepOptions options = args.sweep;
  if (!args.data.empty()) options.overrides.push_back("data.root=" + toml_quoted(args.data));
  if (!args.compute.precision.empty()) {
    options.overrides.push_back("train.precision=" + toml_quoted(args.compute.precision));
  }
  options.training.device = args.compute.choose_device();
  run_sweep(options, [](const std::string& table) { std::printf("%s", table.c_str()); });
  return kExitOk;
}

}  // namespace

void add_sweep_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<SweepArgs>();
  CLI::App* command = app.add_subcommand(
      "sweep", "Train a recipe with every combination of some settings, one run after another, into one table");
  command->add_option("recipe", args->sweep.recipe, "TOML recipe")->required();
  command
      ->add_option("--over", args->sweep.over,
                   "a setting of the recipe and its values, as in --over optimiser.lr=1e-3,3e-4; repeat it for every "
                   "combination with another setting")
      ->type_name("KEY=LIST")
      ->allow_extra_args(false)
      ->required();
  command
      ->add_option("--out", args->sweep.out,
                   "folder of the sweep: a run folder per combination and sweep.csv. The same command goes on with a "
                   "sweep that was stopped, and with more values it adds their runs")
      ->required();
  command->add_option("--data", args->data, "root of the data set, in place of the recipe's data.root");
  add_allow_outside(*command, args->sweep.allow_outside);
  command->add_option("--set", args->sweep.overrides, "override a setting of all runs, KEY=VALUE; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  args->compute.add_to(*command);
  command->callback([args, &run] { run = [args] { return run_sweep_command(*args); }; });
}

}  // namespace depthstill
