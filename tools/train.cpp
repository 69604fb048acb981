#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/args.h"
#include "tools/toml_document.h"
#include "tools/train_run.h"

namespace depthstill {

void add_train_command(CLI::App& app, Run& run) {
  struct Args {
    std::string recipe, data, out;
    std::vector<std::string> overrides;
    ComputeArgs compute;
    HeadArgs head;
    bool resume = false, all_rows = false, no_graph = false, print = false, allow_outside = false;
  };
  const auto args = std::make_shared<Args>();
  CLI::App* command =
      app.add_subcommand("train", "Train a student as a recipe says; leaves weights, metrics and report.html");
  command->add_option("recipe", args->recipe, "TOML recipe; tools/recipes holds those of the paper")->required();
  command->add_option("--data", args->data, "Root of the data set, in place of the recipe's data.root");
  add_allow_outside(*command, args->allow_outside);
  command->add_option("--out", args->out, "Folder of the run (default: runs/RECIPE)");
  command->add_option("--set", args->overrides, "Override a setting, as in --set train.epochs=3; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_flag("--resume", args->resume, "Go on from RUN/last.safetensors");
  command->add_flag("--all-rows", args->all_rows,
                    "Also compute the decoder's rows that cannot reach the loss (the same result, slower)");
  args->head.add_to(*command,
                    "Never store the logits of a DPM head but make them again in the gradient: less memory; or store "
                    "them [default: on CUDA the faster way, timed before the first step; on the CPU stored]");
  command->add_flag("--no-graph", args->no_graph,
                    "On CUDA, launch every kernel of a step anew instead of replaying the step as one graph");
  command->add_flag("--print-recipe", args->print, "Print the effective recipe and do nothing else");
  args->compute.add_to(*command);
  command->callback([args, &run] {
    run = [args] {
      std::vector<std::string> overrides = args->overrides;
      if (!args->data.empty()) overrides.push_back("data.root=" + toml_quoted(args->data));
      if (!args->compute.precision.empty())
        overrides.push_back("train.precision=" + toml_quoted(args->compute.precision));
      Recipe recipe = load_recipe(args->recipe, overrides);
      recipe.data.allow_outside = args->allow_outside;
      if (args->print) {
        std::printf("%s", print_recipe(recipe).c_str());
        return kExitOk;
      }
      TrainOptions options;
      options.out = args->out.empty() ? "runs/" + recipe.name : args->out;
      options.device = args->compute.choose_device();
      options.dtype = args->compute.dtype(recipe.train.precision);
      options.resume = args->resume;
      options.dead_rows = !args->all_rows;
      options.fused_head = args->head.fused;
      options.graph = !args->no_graph;
      train(recipe, options);
      return kExitOk;
    };
  });
}

}  // namespace depthstill
