// depthstill profile: where the time of a training step goes.
#include <charconv>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "kernels/parallel.h"
#include "tools/args.h"
#include "tools/profile.h"

namespace depthstill {
namespace {

struct ProfileArgs {
  std::string recipe, data, steps = "3:5", model = "mobilenet_unet", size, loss;
  std::vector<std::string> overrides;
  int batch = 1;
  size_t rows = 30;
  bool random = false, all_rows = false, fused_head = false, json = false;
  ComputeArgs compute;
};

// "A:B".
void parse_steps(const std::string& text, ProfileOptions& options) {
  const char* const end = text.data() + text.size();
  const auto [colon, first_error] = std::from_chars(text.data(), end, options.first_step);
  const bool has_colon = first_error == std::errc() && colon < end && *colon == ':';
  const auto [rest, last_error] = std::from_chars(has_colon ? colon + 1 : end, end, options.last_step);
  check_usage(has_colon && last_error == std::errc() && rest == end && options.first_step >= 1 &&
                  options.last_step >= options.first_step,
              "--steps: expected A:B such as 3:5, steps from 1, got '", text, "'");
}

// What is profiled without a recipe: a student on random data.
Recipe recipe_of(const ProfileArgs& args) {
  Recipe recipe;
  recipe.name = args.model;
  recipe.model.name = args.model;
  recipe.model.options.head = default_head(args.model);
  recipe.train.batch_size = args.batch;
  recipe.loss_name = !args.loss.empty() ? args.loss : recipe.model.options.head == Head::kDpm ? "tie_kd" : "l1";
  recipe.loss = named_loss(recipe.loss_name);
  SizeArg size{352, 704};
  if (!args.size.empty()) {
    size = parse_size(args.size);
  } else {
    const InputRule rule = make_student(args.model, recipe.model.options)->input_rule();
    if (rule.fit != InputRule::Fit::kPad) size = {rule.size, rule.size};
  }
  recipe.augment.crop = {size.width, size.height};
  // The recipes' 110 rows are of 352: the same share of any height.
  recipe.loss.top_rows = recipe.loss.top_rows * size.height / 352;
  return recipe;
}

int run_profile(const ProfileArgs& args) {
  ProfileOptions options;
  parse_steps(args.steps, options);
  std::vector<std::string> overrides = args.overrides;
  if (!args.data.empty()) overrides.push_back("data.root=" + toml_quoted(args.data));
  const Recipe recipe = args.recipe.empty() ? recipe_of(args) : load_recipe(args.recipe, overrides);
  options.device = args.compute.choose_device();
  options.dtype = args.compute.dtype(recipe.train.precision);
  options.random_data = args.random || args.recipe.empty();
  options.dead_rows = !args.all_rows;
  options.fused_head = args.fused_head;
  const Profile profile = profile_training(recipe, options);
  if (args.json) {
    nlohmann::ordered_json json{{"what", recipe.name},
                                {"model", recipe.model.name},
                                {"size", concat_text(profile.height, 'x', profile.width)},
                                {"batch", profile.batch},
                                {"precision", name_of(options.dtype)},
                                {"device", name_of(options.device)},
                                {"threads", num_threads()},
                                {"dead_rows", options.dead_rows},
                                {"fused_head", options.fused_head},
                                {"random_data", options.random_data},
                                {"steps", {options.first_step, options.last_step}},
                                {"peak_flops_per_s", profile.peak.flops_per_s},
                                {"copy_bytes_per_s", profile.peak.copy_bytes_per_s}};
    json.update(table_json(profile.table, profile.peak));
    std::printf("%s\n", json.dump(2).c_str());
    return kExitOk;
  }
  std::printf("%s: %s %lldx%lld batch %lld %s on %s, %d threads; steps %lld to %lld\n", recipe.name.c_str(),
              recipe.model.name.c_str(), static_cast<long long>(profile.height), static_cast<long long>(profile.width),
              static_cast<long long>(profile.batch), name_of(options.dtype), name_of(options.device), num_threads(),
              static_cast<long long>(options.first_step), static_cast<long long>(options.last_step));
  std::printf("bound: %s\n%s", peak_text(profile.peak, options.dtype).c_str(),
              table_text(profile.table, profile.peak, args.rows).c_str());
  return kExitOk;
}

}  // namespace

void add_profile_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<ProfileArgs>();
  CLI::App* command =
      app.add_subcommand("profile", "Where the time of a training step goes: per layer, against the device's bound");
  CLI::Option* recipe =
      command->add_option("recipe", args->recipe, "TOML recipe; without one, a student on random data");
  command->add_option("--data", args->data, "Root of the data set, in place of the recipe's data.root")->needs(recipe);
  command->add_option("--set", args->overrides, "Override a setting, as in --set train.batch_size=1; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->needs(recipe);
  command->add_flag("--random", args->random, "Random images of the crop's size in place of the recipe's data")
      ->needs(recipe);
  command->add_option("--steps", args->steps, "A:B, the steps that are profiled, from 1; those before warm up")
      ->capture_default_str();
  const auto without_recipe = [&](CLI::Option* option) { option->excludes(recipe); };
  without_recipe(command->add_option("--model", args->model, "student")
                     ->check(CLI::IsMember(student_names()))
                     ->capture_default_str());
  without_recipe(command->add_option(
      "--size", args->size, "HEIGHTxWIDTH in pixels [default: 352x704, or the square that the network is fed]"));
  without_recipe(command->add_option("--batch", args->batch, "images per step")
                     ->check(CLI::PositiveNumber)
                     ->capture_default_str());
  without_recipe(command->add_option("--loss", args->loss, "[default: tie_kd with the dpm head, else l1]")
                     ->check(CLI::IsMember(loss_names())));
  command->add_flag("--all-rows", args->all_rows, "Also compute the decoder's rows that cannot reach the loss");
  command->add_flag("--fused-head", args->fused_head, "Never store the logits of a DPM head (train --fused-head)");
  command->add_option("--rows", args->rows, "lines of the table; 0 = all")->capture_default_str();
  command->add_flag("--json", args->json, "print JSON, with all rows");
  args->compute.add_to(*command);
  command->callback([args, &run] { run = [args] { return run_profile(*args); }; });
}

}  // namespace depthstill
