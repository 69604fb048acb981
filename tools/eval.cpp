// depthstill eval: scores a model, or stored predictions of any system.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "engine/io/atomic_file.h"
#include "tools/args.h"
#include "tools/evaluate_model.h"
#include "tools/load_network.h"
#include "tools/output_plan.h"
#include "tools/progress.h"
#include "tools/recipe.h"
#include "tools/training_baselines.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr int kPngLevel = 9;

struct EvalArgs {
  std::string recipe, weights, data, split;
  std::string dataset, root, list, image_folder, depth_folder, predictions;
  std::string teacher, crop, json, csv, picture, save;
  std::vector<std::string> overrides;
  double depth_units = 0, depth_float_units = 0, teacher_units = 0, teacher_float_units = 0;
  double min_depth = 0, max_depth = 0;
  bool no_flip = false, teacher_similarity = false, median_scaling = false, allow_outside = false;
  ExistingArgs existing;
  ComputeArgs compute;
};

// An EvalSetup, from a recipe or from --dataset, --root and --list, says what is scored on which files.
struct EvalSetup {
  std::optional<Recipe> recipe;
  DatasetSpec data;
  Protocol protocol;
};

EvalSetup setup_from_recipe(const EvalArgs& args) {
  check_usage(args.dataset.empty() && args.root.empty() && args.list.empty(),
              "eval: --dataset, --root and --list take the place of a recipe; give one or the other");
  std::vector<std::string> overrides = args.overrides;
  if (!args.data.empty()) overrides.push_back("data.root=" + toml_quoted(args.data));
  EvalSetup setup;
  setup.recipe = load_recipe(args.recipe, overrides);
  const std::string split = !args.split.empty() ? args.split : has_split(*setup.recipe, "test") ? "test" : "val";
  setup.data = dataset_spec(*setup.recipe, split);
  setup.protocol = protocol_of(*setup.recipe);
  return setup;
}

EvalSetup setup_from_options(const EvalArgs& args) {
  check_usage(!args.dataset.empty() && !args.root.empty() && !args.list.empty(),
              "eval: expected a recipe, or --dataset, --root and --list");
  const std::string list = fs::absolute(args.list).string();  // a recipe's is relative to the root, this one is not
  EvalSetup setup;
  setup.data = dataset_spec(find_benchmark(args.dataset), args.root, list);
  setup.data.order = ListOrder::kAsWritten;
  setup.data.image_folder = args.image_folder;
  setup.data.depth_folder = args.depth_folder;
  setup.data.skip_without_depth = false;
  setup.protocol = make_protocol(args.dataset);
  return setup;
}

// 0: not given.
void set_units(MapFormat& format, double units, double float_units) {
  if (units > 0) format.metres_per_unit = 1 / units;
  if (float_units > 0) format.metres_per_float_unit = 1 / float_units;
}

EvalSetup make_setup(const EvalArgs& args) {
  EvalSetup setup = args.recipe.empty() ? setup_from_options(args) : setup_from_recipe(args);
  setup.data.allow_outside = args.allow_outside;
  if (setup.recipe) setup.recipe->data.allow_outside = args.allow_outside;
  Protocol& protocol = setup.protocol;
  if (args.teacher_similarity) protocol = against_teacher(protocol);
  const Benchmark& benchmark = find_benchmark(protocol.dataset);
  if (!args.crop.empty()) protocol.box = find_box(benchmark, args.crop);
  if (args.median_scaling) protocol.alignment = Alignment::kMedian;
  if (args.min_depth > 0) protocol.min_depth = args.min_depth;
  if (args.max_depth > 0) protocol.max_depth = args.max_depth;
  check_usage(protocol.min_depth < protocol.max_depth, "eval: expected --min-depth ", protocol.min_depth,
              " to be less than --max-depth ", protocol.max_depth);
  set_units(setup.data.depth, args.depth_units, args.depth_float_units);
  if (!args.teacher.empty()) {
    if (!setup.data.teacher) setup.data.teacher = TeacherSpec{};
    setup.data.teacher->folder = fs::absolute(args.teacher).string();
    setup.data.teacher->format.metres_per_unit = benchmark.max_depth / 65535;
  }
  if (setup.data.teacher) set_units(setup.data.teacher->format, args.teacher_units, args.teacher_float_units);
  return setup;
}

std::string prediction_path(const std::string& folder, const EvalItem& item) {
  return (fs::path(folder) / flat_name(item.name, ".npy")).string();
}

// NaN and infinity are refused when the map is scored.
DepthMap read_prediction(const EvalItem& item, const std::string& path) {
  return at_line(item.where, [&] { return read_map(path, {.unusable = MapFormat::Unusable::kKept}); });
}

void check_predictions_exist(const std::vector<EvalItem>& items, const std::string& folder) {
  check(fs::is_directory(folder), folder, ": expected a folder of predictions, found none");
  int64_t missing = 0;
  std::string first;
  for (const EvalItem& item : items) {
    if (item.truth.empty() || fs::exists(prediction_path(folder, item))) continue;
    if (++missing == 1)
      first = item.where + ": expected the prediction " + prediction_path(folder, item) + ", found none";
  }
  check(missing == 0, first, missing > 1 ? concat_text(" (and ", missing - 1, " more missing)") : "");
}

// The folder of the weights, which is that of their run where nobody has moved them; empty if there are none.
std::string run_folder(const EvalArgs& args) {
  return args.weights.empty() ? "" : fs::absolute(args.weights).parent_path().string();
}

OutputPlan plan_outputs(const EvalSetup& setup, const EvalArgs& args, const Dataset& data) {
  OutputPlan plan(args.existing.choice(), args.save);
  if (setup.recipe) {
    plan.reads(*setup.recipe);
    if (const auto training = training_files(*setup.recipe)) plan.reads(*training);
    if (!args.weights.empty()) plan.reads((fs::path(run_folder(args)) / kBaselinesFile).string());
  }
  plan.reads(data);
  plan.reads(args.weights);
  for (const EvalItem& item : eval_items(data, setup.protocol.target)) {
    if (item.truth.empty()) continue;  // not scored
    plan.reads(item.truth);
    if (!args.predictions.empty()) plan.reads(prediction_path(args.predictions, item));
    if (!args.save.empty()) plan.writes(prediction_path(args.save, item), item.name);
  }
  plan.replaces(args.json, "--json");
  plan.replaces(args.csv, "--csv");
  plan.replaces(args.picture, "--picture");
  plan.approve();
  return plan;
}

Evaluation run_stored(const EvalSetup& setup, const EvalArgs& args, const Dataset& data, const Baselines* baselines) {
  check_map_names(data, ".npy");
  const std::vector<EvalItem> items = eval_items(data, setup.protocol.target);
  check_predictions_exist(items, args.predictions);
  EvaluateOptions options;
  options.progress = interruptible_progress("eval", "img");
  options.truth_format = setup.protocol.target == Target::kTeacher ? setup.data.teacher->format : setup.data.depth;
  options.baselines = baselines;
  const auto predict = [&](const EvalItem& item) {
    return read_prediction(item, prediction_path(args.predictions, item));
  };
  return evaluate(setup.protocol, items, predict, options);
}

Evaluation run_model(const EvalSetup& setup, const EvalArgs& args, const Dataset& data, const OutputPlan& plan,
                     EvaluateExtras extras) {
  const std::unique_ptr<DepthModel> student =
      setup.recipe ? load_network(args.weights, *setup.recipe) : load_network(args.weights);
  const TrainedUse use =
      setup.recipe ? *network_record(*setup.recipe).use : student->trained_use().value_or(TrainedUse{});
  PredictOptions options;
  options.flip = use.flip && !args.no_flip;
  options.device = args.compute.choose_device();
  options.graph = true;
  options.note = log_line;
  options.dtype = args.compute.dtype(name_of(use.dtype));
  student->to(options.device);
  student->eval();
  if (!args.save.empty()) {
    check_map_names(data, ".npy");
    make_folder(args.save);
    extras.keep = [&](const EvalItem& item, const DepthMap& prediction) {
      const std::string path = prediction_path(args.save, item);
      if (!plan.skips(path)) write_map(path, prediction, {});
    };
  }
  log_line(concat_text(student->name(), " on ", options.device, ", ", options.dtype, ", ",
                       options.flip ? "averaged with the mirrored image" : "one pass per image"));
  return evaluate_model(*student, data, setup.protocol, options, extras);
}

int run_eval(const EvalArgs& args) {
  check_usage(args.predictions.empty() != args.weights.empty(), "eval: expected either --weights or --pred");
  check_usage(args.picture.empty() || !args.weights.empty(), "eval: --picture needs --weights");
  const EvalSetup setup = make_setup(args);
  const Dataset data(setup.data);
  const OutputPlan plan = plan_outputs(setup, args, data);
  std::optional<Baselines> measured;
  if (setup.recipe) measured = training_baselines(*setup.recipe, setup.protocol, run_folder(args), false);
  std::vector<ReportPanel> panels;
  EvaluateExtras extras;
  extras.baselines = measured ? &*measured : nullptr;
  if (!args.picture.empty()) {
    extras.panels = &panels;
    extras.wanted_panels = 1;
  }
  const Evaluation evaluation = args.predictions.empty() ? run_model(setup, args, data, plan, extras)
                                                         : run_stored(setup, args, data, extras.baselines);
  check(evaluation.summary.images > 0, setup.data.list, ": expected an image with a valid pixel, found none among ",
        evaluation.images.size());
  std::printf("%s", format_evaluation(evaluation).c_str());
  std::fflush(stdout);  // what is shown already is not lost if a file cannot be written
  if (!args.csv.empty()) write_metrics_csv(args.csv, evaluation.images);
  if (!args.json.empty()) write_file(args.json, evaluation_json(evaluation));
  for (const ReportPanel& panel : panels) write_png(args.picture, panel_picture(panel), kPngLevel);
  return kExitOk;
}

std::vector<std::string> benchmark_names() {
  std::vector<std::string> names;
  for (const Benchmark& row : benchmarks()) names.emplace_back(row.name);
  return names;
}

std::vector<std::string> crop_names() {
  std::vector<std::string> names = box_names();
  names.insert(names.begin(), "none");
  return names;
}

void add_source_options(CLI::App& command, EvalArgs& args) {
  command.add_option("recipe", args.recipe, "TOML recipe of the model and its data set");
  command.add_option("--weights", args.weights, "weights of the model to score: .safetensors or .pth");
  command.add_option("--data", args.data, "root of the data set, in place of the recipe's data.root");
  add_allow_outside(command, args.allow_outside);
  command.add_option("--split", args.split, "the recipe's list: train, val or test [default: test, else val]")
      ->check(CLI::IsMember({"train", "val", "test"}));
  command.add_option("--set", args.overrides, "override a setting of the recipe, KEY=VALUE; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command.add_flag("--no-flip", args.no_flip, "do not average with the prediction for the mirrored image");
  command.add_option("--save-pred", args.save, "folder for the predictions: one .npy per image, as --pred reads them");
  command.add_option(
      "--pred", args.predictions,
      "folder of stored predictions instead of a model: float32 .npy in metres, named like the image's path "
      "in the list with '/' as '_'; 352x1216 for kitti, the image's size for nyu and plain");
  command.add_option("--dataset", args.dataset, "protocol without a recipe: kitti, nyu or plain (no crops)")
      ->check(CLI::IsMember(benchmark_names()));
  command.add_option("--root", args.root, "with --dataset: folder that the list's paths are relative to");
  command.add_option("--image-folder", args.image_folder, "with --dataset: below the root, where image paths begin");
  command.add_option("--depth-folder", args.depth_folder, "with --dataset: below the root, where depth paths begin");
  command.add_option("--list", args.list, "with --dataset: list file, lines 'image depth' or 'image depth focal'");
}

void add_protocol_options(CLI::App& command, EvalArgs& args) {
  command.add_option("--depth-scale", args.depth_units,
                     "units per metre of ground truth in integers (PNG, .npy) [default: 256 for kitti and plain, 1000 "
                     "for nyu, or the recipe's]");
  command.add_option("--depth-float-scale", args.depth_float_units,
                     "units per metre of ground truth in floats (.npy, .pfm) [default: 1, or the recipe's]");
  command.add_option("--min-depth", args.min_depth, "metres [default: 0.001, plain the recipe's]");
  command.add_option("--max-depth", args.max_depth, "metres [default: kitti 80, nyu 10, plain 80 or the recipe's]");
  command.add_option("--crop", args.crop, "pixels compared: none, garg or eigen [default: kitti garg, nyu eigen]")
      ->check(CLI::IsMember(crop_names()));
  command.add_flag("--median-scaling", args.median_scaling, "scale each prediction by the ratio of the medians");
  command.add_flag("--teacher-similarity", args.teacher_similarity,
                   "compare with the teacher's maps instead of ground truth: kitti rows 110..351, all columns");
  command.add_option("--teacher", args.teacher, "folder of the teacher's maps [default: the recipe's]");
  command.add_option("--teacher-scale", args.teacher_units,
                     "units per metre of teacher maps in integers [default: 65535/80, nyu 65535/10]");
  command.add_option("--teacher-float-scale", args.teacher_float_units,
                     "units per metre of teacher maps in floats [default: 1, or the recipe's]");
  command.add_option("--json", args.json, "write the result to this file, also over an earlier one");
  command.add_option("--csv", args.csv, "write one line per image to this file, also over an earlier one");
  command.add_option("--picture", args.picture,
                     "write the first image, its truth (or teacher's map), prediction and relative error as one PNG, "
                     "also over an earlier one");
  args.existing.add_to(command, "predictions of --save-pred");
}

}  // namespace

void add_eval_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<EvalArgs>();
  CLI::App* command = app.add_subcommand(
      "eval", "Score a model (RECIPE --weights) or stored predictions (--dataset --root --list --pred)");
  add_source_options(*command, *args);
  add_protocol_options(*command, *args);
  args->compute.add_to(*command);
  command->callback([args, &run] { run = [args] { return run_eval(*args); }; });
}

}  // namespace depthstill
