// depthstill loss: a recipe's objective on two maps, without a network.
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "engine/io/npy.h"
#include "kernels/upsample_bilinear.h"
#include "losses/distill_any_depth.h"
#include "tools/args.h"
#include "tools/distill_recipe.h"
#include "tools/recipe.h"

namespace depthstill {
namespace {

struct LossArgs {
  std::string recipe, prediction, teacher, patches, windows, gradient;
  std::vector<std::string> overrides;
  bool json = false;
  ComputeArgs compute;
};

// A map (H, W) or maps (N, H, W) as (N, H, W).
Tensor maps_of(const FloatArray& array, const std::string& path, Device device) {
  const std::vector<int64_t>& shape = array.shape;
  check((shape.size() == 2 || shape.size() == 3) && !array.values.empty(), path,
        ": expected a map (H, W) or maps (N, H, W), found ", shape.size(), " dimensions of ", array.values.size(),
        " values");
  const size_t at = shape.size() - 2;
  const Shape maps{at == 0 ? 1 : shape[0], shape[at], shape[at + 1]};
  return tensor<float>(maps, array.values, device);
}

PatchMaps read_patches(const LossArgs& args, const Tensor& prediction, Device device) {
  if (args.patches.empty()) return {};
  check(prediction.size(1) == prediction.size(2), args.prediction, ": expected square maps, as patches are of, found ",
        prediction.shape());
  const FloatArray windows = read_npy(args.windows);
  const Tensor maps = maps_of(read_npy(args.patches), args.patches, device);
  check(maps.size(1) == maps.size(2), args.patches, ": expected square maps (K, P, P), found ", maps.shape());
  check(windows.shape == std::vector<int64_t>{maps.size(0), 4}, args.windows, ": expected windows (", maps.size(0),
        ", 4), image, row, column and side of each map in ", args.patches, ", found ", windows.values.size(),
        " numbers");
  std::vector<int32_t> numbers;
  for (size_t i = 0; i < windows.values.size(); ++i) {
    const float value = windows.values[i];
    const bool fits = value >= 0 && value < 0x1p24f && value == std::floor(value);
    check(fits, args.windows, ": expected whole numbers from 0 on, found ", value);
    numbers.push_back(static_cast<int32_t>(value));
    if (i % 4 != 3) continue;
    const int32_t *at = &numbers[i - 3], most = at[3] - static_cast<int32_t>(maps.size(1));
    check(at[0] < prediction.size(0) && at[1] <= most && at[2] <= most && at[3] <= kMaxUpsampleSize, args.windows,
          ": expected windows of ", maps.size(1), " pixels inside one of ", prediction.size(0),
          " maps enlarged to `side`, at most ", kMaxUpsampleSize, ", found image ", at[0], ", row ", at[1], ", column ",
          at[2], ", side ", at[3]);
  }
  return {maps, tensor<int32_t>({maps.size(0), 4}, numbers, device)};
}

// The terms that need no network: those of depth, or of a relative map.
LossResult losses_of(const Recipe& recipe, const Tensor& prediction, const Tensor& teacher, const PatchMaps& patches) {
  if (recipe.loss_name == kDistillAnyDepthLoss) {
    return cross_context_loss(prediction, teacher, recipe.distill, patches);
  }
  LossOptions options = recipe.loss;
  options.range = {recipe.model.options.d_min, recipe.model.options.d_max};
  for (const Term& term : loss_terms()) {
    if (term.needs_bins) options.weights[term.name] = 0.0f;
  }
  check(options.weights.needs_depth(), "loss: expected a term that needs no depth bins, the recipe's loss ",
        recipe.loss_name, " has none");
  return tie_kd_loss(Prediction(prediction), teacher, teacher, options);
}

void print(const LossResult& result, bool as_json) {
  if (!as_json) {
    std::printf("%-8s %.9g\n", "total", static_cast<double>(item(result.total)));
    for (const auto& [name, value] : result.parts) {
      std::printf("%-8s %.9g\n", name.c_str(), static_cast<double>(item(value)));
    }
    return;
  }
  nlohmann::ordered_json json;
  json["total"] = static_cast<double>(item(result.total));
  for (const auto& [name, value] : result.parts) json[name] = static_cast<double>(item(value));
  std::printf("%s\n", json.dump().c_str());
}

int run_loss(const LossArgs& args) {
  const Recipe recipe = load_recipe(args.recipe, args.overrides);
  check_usage(args.patches.empty() || distills(recipe), "loss: --patches belongs to the loss ", kDistillAnyDepthLoss,
              ", found ", recipe.loss_name);
  OutputPlan plan(Existing::kRefuse);
  plan.reads(recipe);
  plan.reads(args.prediction);
  plan.reads(args.teacher);
  plan.reads(args.patches);
  plan.reads(args.windows);
  plan.replaces(args.gradient, "--grad");
  plan.approve();
  const Device device = args.compute.choose_device();
  const FloatArray array = read_npy(args.prediction);
  Tensor prediction = maps_of(array, args.prediction, device);
  const Tensor teacher = maps_of(read_npy(args.teacher), args.teacher, device);
  check(teacher.shape() == prediction.shape(), args.teacher, ": expected maps ", prediction.shape(), " as ",
        args.prediction, ", found ", teacher.shape());
  if (!args.gradient.empty()) prediction.set_requires_grad();
  const LossResult result = losses_of(recipe, prediction, teacher, read_patches(args, prediction, device));
  print(result, args.json);
  if (args.gradient.empty()) return kExitOk;
  std::fflush(stdout);
  backward(result.total);
  write_npy(args.gradient, array.shape, to_vector<float>(to_device(prediction.grad(), Device::kCpu)));
  return kExitOk;
}

}  // namespace

void add_loss_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<LossArgs>();
  CLI::App* command = app.add_subcommand(
      "loss", "Compute the terms of a recipe's loss that need no network, of a prediction and a teacher's map");
  command->add_option("recipe", args->recipe, "TOML recipe: its tables [loss] and [distill]")->required();
  command->add_option("--pred", args->prediction, ".npy of the student's maps, (H, W) or (N, H, W)")->required();
  command
      ->add_option("--teacher", args->teacher,
                   ".npy of the teacher's maps, of the same shape; distill_any_depth: NaN where nothing is known")
      ->required();
  CLI::Option* const patches =
      command->add_option("--patches", args->patches, ".npy of the teacher's maps of patches (K, P, P), for L_lg");
  CLI::Option* const windows = command->add_option(
      "--windows", args->windows, ".npy (K, 4): image, row, column and side of the region that each patch lies in");
  patches->needs(windows);
  windows->needs(patches);
  command->add_option("--set", args->overrides, "override a setting of the recipe, KEY=VALUE; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_option("--grad", args->gradient,
                      "write the gradient of the total by the prediction to this .npy, also over an earlier one");
  command->add_flag("--json", args->json, "print JSON: total (weighted) and each term (not weighted)");
  args->compute.add_to(*command);
  command->callback([args, &run] { run = [args] { return run_loss(*args); }; });
}

}  // namespace depthstill
