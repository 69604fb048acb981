// depthstill eval: scores a model, or stored predictions of any system.
#include "tools/eval.h"

#include <cstdlib>  // defines __GLIBC__
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

#include "engine/eval/evaluate_files.h"
#include "engine/eval/evaluation_text.h"
#include "engine/eval/metrics_csv.h"
#include "engine/io/atomic_file.h"
#include "engine/io/image_header.h"
#include "engine/io/text_file.h"
#include "kernels/core/parallel.h"
#include "tools/args.h"
#include "tools/eval_options.h"
#include "tools/evaluate_model.h"
#include "tools/load_network.h"
#include "tools/output_plan.h"
#include "tools/progress.h"
#include "tools/recipe.h"
#include "tools/stored_predictions.h"
#include "tools/training_baselines.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr int kPngLevel = 9;
constexpr int64_t kComparisonDraws = 1000;  // without --bootstrap

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
  if (!args.protocol.empty()) overrides.push_back("eval.rules=" + toml_quoted(args.protocol));
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
  try {
    setup.protocol = make_protocol(args.dataset, args.protocol);
  } catch (const Error& error) {
    check_usage(false, "eval: ", error.what());
  }
  setup.data = dataset_spec(find_benchmark(args.dataset), args.root, list);
  setup.data.order = ListOrder::kAsWritten;
  setup.data.image_folder = args.image_folder;
  setup.data.depth_folder = args.depth_folder;
  setup.data.skip_without_depth = false;
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
  check_usage(!args.median_scaling || args.align.empty() || args.align == "median",
              "eval: --median-scaling is --align median, got --align ", args.align, " beside it");
  if (args.median_scaling) protocol.alignment = Alignment::kMedian;
  if (!args.align.empty()) protocol.alignment = find_alignment(args.align);
  if (args.fit_side >= 0) protocol.fit_side = args.fit_side;
  for (const auto& [name, quantity] : kQuantities) {
    if (name == args.metric_space) protocol.metric_space = quantity;
  }
  if (!args.nonfinite.empty()) protocol.nonfinite_to_limits = args.nonfinite == "limit";
  for (const PredictionResizeRow& row : prediction_resizes()) {
    if (row.name == args.pred_resize) protocol.resize = row.resize;
  }
  if (args.min_depth > 0) protocol.min_depth = args.min_depth;
  if (args.max_depth > 0) protocol.max_depth = args.max_depth;
  check_usage(protocol.min_depth < protocol.max_depth, "eval: expected --min-depth ", protocol.min_depth,
              " to be less than --max-depth ", protocol.max_depth);
  check_usage(!protocol.nonfinite_to_limits || (protocol.rules->clamps && std::isfinite(protocol.max_depth)),
              "eval: expected a protocol with limits of depth for --nonfinite limit, got ", protocol.rules->name,
              " on ", protocol.dataset, protocol.rules->clamps ? " without --max-depth" : "");
  set_units(setup.data.depth, args.depth_units, args.depth_float_units);
  if (!args.teacher.empty()) {
    if (!setup.data.teacher) setup.data.teacher = TeacherSpec{};
    setup.data.teacher->folder = fs::absolute(args.teacher).string();
    setup.data.teacher->format.metres_per_unit = benchmark.max_depth / 65535;
  }
  if (setup.data.teacher) set_units(setup.data.teacher->format, args.teacher_units, args.teacher_float_units);
  return setup;
}

std::string saved_path(const std::string& folder, const EvalItem& item) {
  return (fs::path(folder) / flat_name(item.name, ".npy")).string();
}

StoredPredictions stored_predictions(const EvalSetup& setup, const EvalArgs& args, const std::string& place) {
  PredictionNames names = PredictionNames::kFlat;
  for (const auto& [name, naming] : kNamings) {
    if (name == args.pred_names) names = naming;
  }
  std::optional<Quantity> kind;
  for (const auto& [name, quantity] : kQuantities) {
    if (name == args.pred_kind) kind = quantity;
  }
  return {place, names, kind, args.pred_units, setup.protocol};
}

// The folder of the weights, which is that of their run where nobody has moved them; empty if there are none.
std::string run_folder(const EvalArgs& args) {
  return args.weights.empty() ? "" : fs::absolute(args.weights).parent_path().string();
}

bool is_table(const std::string& path) { return fs::path(path).extension() == ".csv"; }

OutputPlan plan_outputs(const EvalSetup& setup, const EvalArgs& args, const Dataset& data) {
  std::vector<StoredPredictions> stored;
  for (const std::string& place : {args.predictions, args.compare}) {
    if (!place.empty() && !is_table(place)) stored.push_back(stored_predictions(setup, args, place));
  }
  OutputPlan plan(args.existing.choice(), args.save);
  if (setup.recipe) {
    plan.reads(*setup.recipe);
    if (const auto training = training_files(*setup.recipe)) plan.reads(*training);
    if (!args.weights.empty()) plan.reads((fs::path(run_folder(args)) / kBaselinesFile).string());
  }
  plan.reads(data);
  plan.reads(args.weights);
  for (const EvalItem& item : eval_items(data, setup.protocol)) {
    if (item.truth.empty()) continue;  // not scored
    plan.reads(item.truth);
    plan.reads(item.mask);
    for (const StoredPredictions& one : stored) plan.reads(one.path(item));
    if (!args.save.empty()) plan.writes(saved_path(args.save, item), item.name);
  }
  if (is_table(args.compare)) plan.reads(args.compare);
  plan.replaces(args.json, "--json");
  plan.replaces(args.csv, "--csv");
  plan.replaces(args.picture, "--picture");
  plan.approve();
  return plan;
}

// The size of truth that does not say it: --truth-size, else that of the image if it is there.
std::optional<ImageSize> size_without_header(const EvalArgs& args, const Dataset& data, const EvalItem& item,
                                             const std::vector<EvalItem>& items) {
  if (!args.truth_size.empty()) {
    const SizeArg size = parse_size(args.truth_size);
    return ImageSize{size.width, size.height};
  }
  const std::string image = data.image_path(&item - items.data());
  if (!fs::exists(image)) return std::nullopt;
  return check_image_file(read_bytes(image), image).size;
}

// Memory that one image gives back is what the next asks for. glibc would return it to the system in between, which
// then clears each page anew: a fifth of the time of small images.
void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that it allows
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

// Scores the predictions in `place`: --pred, or those that it is compared with.
Evaluation run_stored(const EvalSetup& setup, const EvalArgs& args, const Dataset& data, const std::string& place,
                      const Baselines* baselines) {
  keep_freed_memory();
  StoredPredictions stored = stored_predictions(setup, args, place);
  if (args.pred_names == "flat") check_map_names(data, ".npy");
  std::vector<EvalItem> items = eval_items(data, setup.protocol);
  stored.check_exist(items);
  for (EvalItem& item : items) item.prediction = stored.path(item);
  EvaluateOptions options;
  options.progress = interruptible_progress("eval", "img");
  options.truth_format = setup.protocol.target == Target::kTeacher ? setup.data.teacher->format : setup.data.depth;
  options.truth_size = [&](const EvalItem& item) { return size_without_header(args, data, item, items); };
  options.scoring = args.scoring;
  options.baselines = baselines;
  options.size_advice = "; --pred-resize brings it there";
  const auto open = [&](const EvalItem& item) { return stored.open(item); };
  Evaluation evaluation = evaluate_files(setup.protocol, items, open, options);
  evaluation.list = describe_data(data, setup.protocol);
  return evaluation;
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
      const std::string path = saved_path(args.save, item);
      if (!plan.skips(path)) write_map(path, prediction, {});
    };
  }
  log_line(concat_text(student->name(), " on ", options.device, ", ", options.dtype, ", ",
                       options.flip ? "averaged with the mirrored image" : "one pass per image"));
  extras.scoring = args.scoring;
  return evaluate_model(*student, data, setup.protocol, options, extras);
}

// The figures that --compare names: those of a table, or of predictions scored now.
std::vector<ImageMetrics> other_figures(const EvalSetup& setup, const EvalArgs& args, const Dataset& data) {
  if (!is_table(args.compare)) return run_stored(setup, args, data, args.compare, nullptr).images;
  MetricsTable table = read_metrics_csv(args.compare);
  const bool fits = setup.protocol.alignment != Alignment::kNone;
  check(table.fits == fits, args.compare, ": expected figures ", fits ? "with" : "without",
        " an alignment, as --align says, found ", table.fits ? "some with" : "some without");
  for (const MetricField& field : setup.protocol.rules->metrics) {
    check(std::any_of(table.fields.begin(), table.fields.end(),
                      [&](const MetricField& one) { return one.value == field.value; }),
          args.compare, ":1: expected the column ", field.name, " of protocol ", setup.protocol.rules->name,
          ", found none");
  }
  return std::move(table.images);
}

void add_intervals(const EvalSetup& setup, const EvalArgs& args, const Dataset& data, Evaluation& evaluation) {
  SceneOf scenes;
  if (args.bootstrap_by == "scene") {
    const Benchmark& benchmark = find_benchmark(setup.protocol.dataset);
    scenes = [&benchmark](const std::string& image) { return scene_of(benchmark, image); };
    std::set<std::string> names;
    for (const ImageMetrics& image : evaluation.images) {
      if (image.metrics) names.insert(scenes(image.name));
    }
    evaluation.drawn_scenes = static_cast<int64_t>(names.size());
  }
  const auto& metrics = setup.protocol.rules->metrics;
  evaluation.intervals = bootstrap(evaluation.images, metrics, args.bootstrap, scenes);
  if (args.compare.empty()) return;
  BootstrapOptions paired = args.bootstrap;
  if (paired.draws == 0) paired.draws = kComparisonDraws;
  evaluation.comparison =
      compare(evaluation.images, other_figures(setup, args, data), args.compare, metrics, paired, scenes);
}

int run_eval(const EvalArgs& args, bool prints) {
  check_usage(args.predictions.empty() != args.weights.empty(), "eval: expected either --weights or --pred");
  const bool stored =
      !args.pred_kind.empty() || args.pred_units > 0 || args.pred_names != "flat" || !args.pred_resize.empty();
  const bool reads_maps = !args.predictions.empty() || (!args.compare.empty() && !is_table(args.compare));
  check_usage(!stored || reads_maps,
              "eval: --pred-kind, --pred-scale, --pred-names and --pred-resize are about --pred, got --weights");
  check_usage(args.bootstrap_by == "image" || args.bootstrap.draws > 0 || !args.compare.empty(),
              "eval: --bootstrap-by needs --bootstrap or --compare");
  check_usage(args.picture.empty() || !args.weights.empty(), "eval: --picture needs --weights");
  if (args.compute.threads > 0) set_num_threads(args.compute.threads);
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
  Evaluation evaluation = args.predictions.empty() ? run_model(setup, args, data, plan, extras)
                                                   : run_stored(setup, args, data, args.predictions, extras.baselines);
  check(evaluation.summary.images > 0, setup.data.list, ": expected an image with a valid pixel, found none among ",
        evaluation.images.size());
  add_intervals(setup, args, data, evaluation);
  if (prints) std::printf("%s", format_evaluation(evaluation).c_str());
  std::fflush(stdout);  // what is shown already is not lost if a file cannot be written
  if (!args.csv.empty()) {
    write_metrics_csv(args.csv, evaluation.images, setup.protocol.rules->metrics,
                      setup.protocol.alignment != Alignment::kNone);
  }
  if (!args.json.empty()) write_file(args.json, evaluation_json(evaluation));
  for (const ReportPanel& panel : panels) write_png(args.picture, panel_picture(panel), kPngLevel);
  return kExitOk;
}

}  // namespace

void evaluate_quietly(std::vector<std::string> arguments) {
  CLI::App command("eval");
  EvalArgs args;
  add_eval_options(command, args);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
  try {
    command.parse(arguments);
  } catch (const CLI::ParseError& error) {
    throw UsageError(concat_text("eval: ", error.what()));
  }
  run_eval(args, false);
}

void add_eval_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<EvalArgs>();
  CLI::App* command = app.add_subcommand(
      "eval", "Score a model (RECIPE --weights) or stored predictions (--dataset --root --list --pred)");
  add_eval_options(*command, *args);
  command->callback([args, &run] { run = [args] { return run_eval(*args, true); }; });
}

}  // namespace depthstill
