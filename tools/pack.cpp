// depthstill pack: engine/data/pack.h on the command line.
#include "engine/data/pack.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "tools/args.h"
#include "tools/progress.h"
#include "tools/recipe.h"

namespace depthstill {
namespace {

struct PackArgs {
  std::string recipe, data, out;
  std::vector<std::string> overrides;
  int workers = 0;
  int64_t shard_mib = 2048;
  bool allow_outside = false;
};

int run_pack(const PackArgs& args) {
  std::vector<std::string> overrides = args.overrides;
  if (!args.data.empty()) overrides.push_back("data.root=" + toml_quoted(args.data));
  Recipe recipe = load_recipe(args.recipe, overrides);
  recipe.data.allow_outside = args.allow_outside;
  DatasetSpec spec = dataset_spec(recipe, "train");
  spec.packed.clear();
  const auto data = std::make_shared<const Dataset>(spec);
  OutputPlan plan(Existing::kSkip, args.out);  // pack() goes on with its own work, and refuses folders of others
  plan.reads(recipe);
  plan.reads(*data);
  plan.writes(args.out + "/packed.json", args.recipe);
  plan.approve();
  PackOptions options;
  options.workers = std::max(args.workers > 0 ? args.workers : recipe.data.workers, 1);
  options.shard_bytes = static_cast<uint64_t>(args.shard_mib) << 20;
  log_line(concat_text("packing ", data->size(), " samples of ", spec.list, " into ", args.out, " with ",
                       options.workers, " threads"));
  const PackReport report = pack(data, args.out, options, interruptible_progress("pack", "img"));
  std::printf("%lld written (%s), %lld kept; ", static_cast<long long>(report.written),
              format_bytes(static_cast<double>(report.bytes)).c_str(), static_cast<long long>(report.kept));
  if (report.max_error > 0)
    std::printf("depth written to within %.3g m\n", report.max_error);
  else
    std::printf("depth is exact\n");
  log_line("train from it with --set data.train.packed=" + args.out);
  return kExitOk;
}

}  // namespace

void add_pack_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<PackArgs>();
  CLI::App* command = app.add_subcommand(
      "pack", "Decode, crop and resize a recipe's training data once, into files that training maps into memory");
  command->add_option("recipe", args->recipe, "TOML recipe: its training list, files, crop and resize")->required();
  command->add_option("--out", args->out, "folder to pack into: missing, empty, or an interrupted pack to go on with")
      ->required();
  command->add_option("--data", args->data, "root of the data set, in place of the recipe's data.root");
  add_allow_outside(*command, args->allow_outside);
  command->add_option("--set", args->overrides, "override a setting of the recipe, KEY=VALUE; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_option("--workers", args->workers, "threads that decode [default: the recipe's data.workers]")
      ->check(CLI::Range(1, 256));
  command->add_option("--shard-mib", args->shard_mib, "size at which a file ends and the next one begins")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->callback([args, &run] { run = [args] { return run_pack(*args); }; });
}

}  // namespace depthstill
