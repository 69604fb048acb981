// depthstill teach: tools/teacher_maps.h on the command line.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>

#include "engine/io/text_file.h"
#include "tools/args.h"
#include "tools/distill_recipe.h"
#include "tools/load_network.h"
#include "tools/progress.h"
#include "tools/recipe.h"
#include "tools/teach_regions.h"
#include "tools/teacher_maps.h"

namespace depthstill {
namespace {

struct TeachArgs {
  std::string recipe, weights, data, out, split = "train", list, teacher;
  std::vector<std::string> overrides;
  ExistingArgs existing;
  TeachOptions options;
  int side = 0;
  bool flip = false;
  bool allow_outside = false, regions = false;
  ComputeArgs compute;
};

Recipe recipe_of(const TeachArgs& args) {
  std::vector<std::string> overrides = args.overrides;
  if (!args.data.empty()) overrides.push_back("data.root=" + toml_quoted(args.data));
  Recipe recipe = load_recipe(args.recipe, overrides);
  recipe.data.allow_outside = args.allow_outside;
  if (!args.out.empty()) {  // a recipe's folder is below its root, one of the command line is where the user stands
    DataRecipe& data = recipe.data;
    SplitRecipe& split = args.split == "train" ? data.train : args.split == "val" ? data.val : data.test;
    split.teacher = std::filesystem::absolute(args.out).lexically_normal().string();
  }
  return recipe;
}

// The number of the teacher whose labels are wanted, one of those that have a folder.
size_t find_teacher(const Recipe& recipe, const std::string& name) {
  const std::vector<std::string>& teachers = recipe.regions.teachers;
  std::vector<std::string> folders;
  for (size_t i = 0; i < teachers.size(); ++i) {
    if (!is_online(recipe, i)) folders.push_back(teachers[i]);
  }
  check_usage(!folders.empty(),
              "teach: --regions: expected a folder in distill.teachers, found weights alone, which "
              "label regions while a student is trained");
  check_usage(!name.empty() || folders.size() == 1, "teach: expected --teacher, one of ",
              list_text(folders, std::identity()));
  const std::string& wanted = name.empty() ? folders[0] : name;
  check_usage(std::ranges::find(folders, wanted) != folders.end(), "teach: expected --teacher to be one of ",
              list_text(folders, std::identity()), ", found '", printable(wanted), "'");
  return static_cast<size_t>(std::ranges::find(teachers, wanted) - teachers.begin());
}

int run_teach_regions(const TeachArgs& args) {
  check_usage(args.split == "train" && args.out.empty(),
              "teach: --regions are those of the training list, in the folder of distill.teachers: expected neither "
              "--split nor --out");
  check_usage(args.weights.empty() != args.list.empty(), "teach: --regions: expected either --weights or --list");
  check_usage(!args.flip && args.side == 0 && args.options.tiles == 1 && !args.options.half,
              "teach: --regions: expected none of --flip, --side, --tiles and --half");
  const Recipe recipe = recipe_of(args);
  check(distills(recipe), args.recipe, ": --regions: expected the loss ", kDistillAnyDepthLoss, ", found ",
        recipe.loss_name);
  const size_t teacher = find_teacher(recipe, args.teacher);
  const Dataset data(dataset_spec(recipe, "train"));
  const Existing existing = args.existing.choice(Existing::kSkip);
  const std::string folder = teacher_folder(recipe, teacher);
  OutputPlan plan(existing, folder);
  plan.reads(data);
  plan.reads(recipe);
  plan.reads(args.weights);
  plan.writes(folder + '/' + kRegionsFile, args.recipe);
  if (args.list.empty()) {
    for (const RegionTask& task : region_tasks(recipe, data, teacher)) plan.writes(task.path, task.path);
  }
  plan.replaces(args.list, "--list");
  plan.approve();
  if (!args.list.empty()) {
    list_regions(recipe, data, teacher, args.list, interruptible_progress("list", "region"));
    log_line(concat_text("expected labels: ", args.list, "; the files it names belong below ", folder));
    return kExitOk;
  }
  RegionTeachOptions options;
  options.teacher = teacher;
  options.device = args.compute.choose_device();
  options.dtype = args.compute.dtype();
  options.overwrite = existing == Existing::kOverwrite;
  const std::unique_ptr<DepthModel> network = load_network(args.weights);
  network->to(options.device);
  network->eval();
  log_line(concat_text(network->name(), " on ", options.device, ", ", options.dtype, ": regions of ",
                       recipe.regions.spec.patch, " pixels into ", folder));
  const RegionTeachReport report =
      teach_regions(recipe, data, *network, args.weights, options, interruptible_progress("teach", "region"));
  std::printf("%lld written, %lld kept\n", static_cast<long long>(report.written), static_cast<long long>(report.kept));
  return kExitOk;
}

int run_teach(const TeachArgs& args) {
  if (args.regions) return run_teach_regions(args);
  check_usage(!args.weights.empty(), "teach: --weights is required");
  check_usage(args.list.empty() && args.teacher.empty(), "teach: --list and --teacher belong to --regions");
  const Recipe recipe = recipe_of(args);
  DatasetSpec spec = dataset_spec(recipe, args.split);
  spec.packed.clear();
  spec.resize.reset();  // the teacher sees what is on disk; training shrinks its maps with the images
  const Dataset data(spec);
  const Existing existing = args.existing.choice(Existing::kSkip);
  OutputPlan plan = plan_teacher_maps(data, existing);
  plan.reads(args.weights);
  plan.reads(recipe);
  plan.approve();

  PredictOptions predicting;
  predicting.flip = args.flip;
  predicting.side = args.side;
  predicting.labels = distills(recipe);
  predicting.device = args.compute.choose_device();
  predicting.graph = true;
  predicting.note = log_line;
  predicting.dtype = args.compute.dtype();
  const std::unique_ptr<DepthModel> teacher = load_network(args.weights);
  teacher->to(predicting.device);
  teacher->eval();
  log_line(concat_text(teacher->name(), " on ", predicting.device, ", ", predicting.dtype, ": ", data.size(),
                       " images of ", spec.list));
  TeachOptions options = args.options;
  options.overwrite = existing == Existing::kOverwrite;
  const TeachReport report =
      teach(data, Predictor(*teacher, predicting), options, interruptible_progress("teach", "img"));
  if (report.clipped > 0) {
    const bool png = spec.teacher->extension == ".png";
    log_line(concat_text(report.clipped, " maps cannot hold all depths, and what was clipped would be learnt: set ",
                         png ? "data.teacher_units_per_metre, or teacher_extension = \".npy\""
                             : "data.teacher_float_units, or leave out --half"));
  }
  std::printf("%lld written, %lld kept\n", static_cast<long long>(report.written), static_cast<long long>(report.kept));
  return kExitOk;
}

}  // namespace

void add_teach_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<TeachArgs>();
  CLI::App* command = app.add_subcommand(
      "teach", "Write a model's depth maps of a recipe's images, as the teacher that the recipe learns from");
  command->add_option("recipe", args->recipe, "TOML recipe: its list, crop, and where and how teacher maps are stored")
      ->required();
  command->add_option("--weights", args->weights,
                      "the teacher, as written by train or convert; required but for --list");
  command->add_flag("--regions", args->regions,
                    "of a recipe that distils, the labels of the very regions that its run draws, epoch by epoch, into "
                    "the folder of distill.teachers");
  command->add_option("--teacher", args->teacher,
                      "with --regions: which folder of distill.teachers, if there are several");
  command->add_option("--list", args->list,
                      "with --regions, instead of labels: write this CSV, a line per label, for another program to "
                      "make them");
  command->add_option("--split", args->split, "the recipe's list: train, val or test")
      ->check(CLI::IsMember({"train", "val", "test"}))
      ->capture_default_str();
  command->add_option("--data", args->data, "root of the data set, in place of the recipe's data.root");
  add_allow_outside(*command, args->allow_outside);
  command->add_option("--out", args->out, "folder of the maps, in place of the recipe's data.SPLIT.teacher");
  command->add_option("--set", args->overrides, "override a setting of the recipe, KEY=VALUE; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command
      ->add_option("--side", args->side,
                   "pixels that the image's shorter side (midas_small, da3*: the longer) is brought to, aspect kept "
                   "[default: as "
                   "the network was trained]")
      ->check(CLI::Range(1, kMaxImageSide));
  command->add_flag("--flip", args->flip, "average with the map of the mirrored image (twice the time)");
  command->add_option("--tiles", args->options.tiles, "also predict N x N overlapping windows and blend them in")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  command->add_option("--overlap", args->options.overlap, "of neighbouring windows, as a share of their side")
      ->check(CLI::Range(0.05, 0.75))
      ->capture_default_str();
  command->add_flag("--half", args->options.half, "store .npy maps in half precision");
  args->existing.add_to(*command, "maps", Existing::kSkip);
  args->compute.add_to(*command);
  command->callback([args, &run] { run = [args] { return run_teach(*args); }; });
}

}  // namespace depthstill
