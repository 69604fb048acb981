// depthstill profile: where the time of a training step goes, or with --estimate what it has to be on a GPU.
#include "tools/bench/profile.h"

#include <charconv>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "kernels/core/library_options.h"
#include "kernels/core/parallel.h"
#include "models/model_table.h"
#include "tools/args.h"
#include "tools/progress.h"

namespace depthstill {
namespace {

struct ProfileArgs {
  std::string recipe, data, steps = "3:5", model = "mobilenet_unet", size, loss;
  std::vector<std::string> overrides;
  int batch = 1;
  HeadArgs head;
  size_t rows = 30;
  bool random = false, all_rows = false, json = false, estimate = false, allow_outside = false;
  double peak_tflops = 0, peak_gb = 0;  // 0: the data sheet's
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

// Without a recipe, a student is profiled on random data.
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
    const InputRule rule = input_rule(args.model);
    if (rule.fit != InputRule::Fit::kPad) size = {rule.size, rule.size};
  }
  recipe.augment.crop = {size.width, size.height};
  recipe.loss.top_rows = kitti_top_rows(recipe.loss_name, size.height);
  return recipe;
}

nlohmann::ordered_json settings_json(const Recipe& recipe, const ProfileOptions& options, const Profile& profile) {
  return {{"what", recipe.name},
          {"model", recipe.model.name},
          {"size", concat_text(profile.height, 'x', profile.width)},
          {"batch", profile.batch},
          {"precision", name_of(options.dtype)},
          {"device", name_of(options.device)},
          {"dead_rows", options.dead_rows},
          {"fused_head", profile.fused_head},
          {"peak_flops_per_s", profile.peak.flops_per_s},
          {"copy_bytes_per_s", profile.peak.copy_bytes_per_s}};
}

std::string settings_text(const Recipe& recipe, const ProfileOptions& options, const Profile& profile) {
  return concat_text(recipe.name, ": ", recipe.model.name, ' ', profile.height, 'x', profile.width, " batch ",
                     profile.batch, ' ', name_of(options.dtype), profile.fused_head ? ", fused head," : "");
}

void print_profile(const ProfileArgs& args, const Recipe& recipe, const ProfileOptions& options) {
  const Profile profile = profile_training(recipe, options);
  if (args.json) {
    nlohmann::ordered_json json = settings_json(recipe, options, profile);
    json["threads"] = num_threads();
    json["random_data"] = options.random_data;
    json["steps"] = {options.first_step, options.last_step};
    json["decode_ms_per_image"] = profile.decode_ms;
    json["waited_ms"] = profile.waited_ms;
    json.update(table_json(profile.table, profile.peak));
    std::printf("%s\n", json.dump(2).c_str());
    return;
  }
  std::printf("%s on %s, %d threads; steps %lld to %lld\n", settings_text(recipe, options, profile).c_str(),
              name_of(options.device), num_threads(), static_cast<long long>(options.first_step),
              static_cast<long long>(options.last_step));
  std::printf("bound: %s\n%s", peak_text(profile.peak, options.dtype).c_str(),
              table_text(profile.table, profile.peak, args.rows).c_str());
  std::printf("parts: %s\n", parts_text(profile.table).c_str());
  if (options.random_data) return;
  std::printf("decode %.2f ms an image, on threads beside the steps, which waited %.2f ms each for them\n",
              profile.decode_ms, profile.waited_ms);
}

void print_estimate(const ProfileArgs& args, const Recipe& recipe, const ProfileOptions& options) {
  MachinePeak peak = h100_peak(options.dtype, library_options().strict_fp32);
  if (args.peak_tflops > 0) peak.flops_per_s = 1e12 * args.peak_tflops;
  if (args.peak_gb > 0) peak.copy_bytes_per_s = 1e9 * args.peak_gb;
  const StepEstimate estimate = estimate_training(recipe, options, peak);
  const Profile& profile = estimate.profile;
  if (args.json) {
    nlohmann::ordered_json json = settings_json(recipe, options, profile);
    json["estimate"] = true;
    json["kernels"] = estimate.kernels;
    json["copies"] = estimate.copies;
    json["step_bytes"] = estimate.step_bytes;
    json["parameter_bytes"] = estimate.parameter_bytes;
    json["optimiser_bytes"] = estimate.optimiser_bytes;
    json["label_weight_bytes"] = estimate.labels.weights;
    json["label_bytes"] = estimate.labels.temporaries;
    json.update(bound_json(profile.table, peak));
    if (args.peak_tflops <= 0 && args.peak_gb <= 0) {
      const StepBound h200 = step_bound(profile.table, h200_peak(options.dtype, library_options().strict_fp32));
      json["h200"] = {
          {"bound_ms", h200.ms()}, {"bound_by_products_ms", h200.products_ms}, {"bound_by_memory_ms", h200.memory_ms}};
    }
    std::printf("%s\n", json.dump(2).c_str());
    return;
  }
  std::printf("%s on an NVIDIA H100\n", settings_text(recipe, options, profile).c_str());
  std::printf("An estimate, by arithmetic: nothing ran on a GPU. No kernel sustains 100%% of these peaks.\n");
  std::printf("bound: %.1f TFLOP/s %s%s, %.0f GB/s%s\n%s", 1e-12 * peak.flops_per_s, name_of(options.dtype),
              args.peak_tflops > 0 ? "" : " (data sheet)", 1e-9 * peak.copy_bytes_per_s,
              args.peak_gb > 0 ? "" : " (data sheet)", bound_text(profile.table, peak, args.rows).c_str());
  const StepBound bound = step_bound(profile.table, peak);
  std::printf(
      "\nbound of the step (estimate) %.2f ms = %.2f ms by products + %.2f ms by memory: at most %.0f images/s\n",
      bound.ms(), bound.products_ms, bound.memory_ms, 1e3 * static_cast<double>(profile.batch) / bound.ms());
  if (args.peak_tflops <= 0 && args.peak_gb <= 0) {
    const MachinePeak h200 = h200_peak(options.dtype, library_options().strict_fp32);
    const StepBound other = step_bound(profile.table, h200);
    std::printf("on an H200 (%.0f GB/s) %.2f ms = %.2f ms by products + %.2f ms by memory: at most %.0f images/s\n",
                1e-9 * h200.copy_bytes_per_s, other.ms(), other.products_ms, other.memory_ms,
                1e3 * static_cast<double>(profile.batch) / other.ms());
  }
  std::printf("asked of the GPU per step: %lld kernels and library calls, %lld copies and memsets\n",
              static_cast<long long>(estimate.kernels), static_cast<long long>(estimate.copies));
  const auto gb = [](size_t bytes) { return 1e-9 * static_cast<double>(bytes); };
  std::printf(
      "memory: %.2f GB for the step's tensors as planned, %.3f GB parameters, %.3f GB moments of the optimiser\n",
      gb(estimate.step_bytes), gb(estimate.parameter_bytes), gb(estimate.optimiser_bytes));
  if (estimate.labels.weights == 0) return;
  std::printf("memory of the networks that make labels: %.3f GB weights, %.2f GB while one of them runs\n",
              gb(estimate.labels.weights), gb(estimate.labels.temporaries));
}

int run_profile(const ProfileArgs& args) {
  ProfileOptions options;
  parse_steps(args.steps, options);
  std::vector<std::string> overrides = args.overrides;
  if (!args.data.empty()) overrides.push_back("data.root=" + toml_quoted(args.data));
  ComputeArgs compute = args.compute;
  if (args.estimate) {
    check_usage(compute.device != "cpu", "--estimate: expected --device auto or cuda, got cpu: it is of a GPU");
    enable_dry_run();
    compute.device = "cuda";
  }
  Recipe recipe = args.recipe.empty() ? recipe_of(args) : load_recipe(args.recipe, overrides);
  recipe.data.allow_outside = args.allow_outside;
  options.device = compute.choose_device();
  options.dtype = compute.dtype(recipe.train.precision);
  options.random_data = args.random || args.recipe.empty();
  options.dead_rows = !args.all_rows;
  options.fused_head = args.head.fused;
  (args.estimate ? print_estimate : print_profile)(args, recipe, options);
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
  add_allow_outside(*command, args->allow_outside)->needs(recipe);
  command->add_option("--set", args->overrides, "Override a setting, as in --set train.batch_size=1; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->needs(recipe);
  command->add_flag("--random", args->random, "Random images of the crop's size in place of the recipe's data")
      ->needs(recipe);
  CLI::Option* steps =
      command->add_option("--steps", args->steps, "A:B, the steps that are profiled, from 1; those before warm up")
          ->capture_default_str();
  const auto without_recipe = [&](CLI::Option* option) { option->excludes(recipe); };
  without_recipe(command->add_option("--model", args->model, "student")
                     ->check(CLI::IsMember(model_names()))
                     ->capture_default_str());
  without_recipe(command->add_option(
      "--size", args->size, "HEIGHTxWIDTH in pixels [default: 352x704, or the square that the network is fed]"));
  without_recipe(command->add_option("--batch", args->batch, "images per step")
                     ->check(CLI::PositiveNumber)
                     ->capture_default_str());
  without_recipe(command->add_option("--loss", args->loss, "[default: tie_kd with the dpm head, else l1]")
                     ->check(CLI::IsMember(loss_names())));
  command->add_flag("--all-rows", args->all_rows, "Also compute the decoder's rows that cannot reach the loss");
  args->head.add_to(*command,
                    "Never store the logits of a DPM head, or store them [default: as train; --estimate: stored]");
  CLI::Option* estimate =
      command
          ->add_flag(
              "--estimate", args->estimate,
              "The bound of a step on an NVIDIA H100, and on an H200, by arithmetic: no GPU is used, no data is read")
          ->excludes(steps);
  command
      ->add_option("--peak-tflops", args->peak_tflops,
                   "products in 1e12 operations/s [default: the H100 SXM's data sheet: bf16 989.4, fp32 494.7 (tf32), "
                   "with --fp32 strict 66.9]")
      ->check(CLI::PositiveNumber)
      ->needs(estimate);
  command->add_option("--peak-gb", args->peak_gb, "memory in 1e9 bytes/s [default: the H100 SXM's data sheet: 3350]")
      ->check(CLI::PositiveNumber)
      ->needs(estimate);
  command->add_option("--rows", args->rows, "lines of the table; 0 = all")->capture_default_str();
  command->add_flag("--json", args->json, "print JSON, with all rows");
  args->compute.add_to(*command);
  command->callback([args, &run] { run = [args] { return run_profile(*args); }; });
}

}  // namespace depthstill
