#include "tools/distill_recipe.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <sstream>
#include <utility>
#include <variant>

#include "engine/io/checksum.h"
#include "engine/io/mapped_file.h"
#include "engine/io/text_file.h"
#include "engine/io/weights_file.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "tools/load_network.h"
#include "tools/training_needs.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFeatures = "distill.features";
constexpr const char* kTeachers = "distill.teachers";
constexpr const char* kLabelBatch = "distill.label_batch";
constexpr const char* kDriftFactor = "distill.drift_factor";  // decides when there is a warning, and nothing else

void bind_loss_parts(Settings& s, DistillOptions& distill) {
  const std::vector<std::pair<std::string, ContextNorm>> norms = {{"hybrid", ContextNorm::kHybrid},
                                                                  {"local", ContextNorm::kLocal},
                                                                  {"global", ContextNorm::kGlobal},
                                                                  {"none", ContextNorm::kNone}};
  s.choice("distill.norm", distill.norm, norms, "normalisation of L_sc (Eq. 1 to 6)");
  s.choice("distill.patch_norm", distill.patch_norm, norms, "the same of L_lg");
  s.choice("distill.contexts", distill.contexts,
           {{"range", ContextKind::kRange}, {"quantile", ContextKind::kQuantile}, {"grid", ContextKind::kGrid}},
           "what hybrid and local cut: the teacher's range, its quantiles, or the image");
  s.number("distill.lambda_sc", distill.lambda_sc, kNotNegative, "weight of the shared-context loss L_sc; 0: left out");
  s.number("distill.lambda_lg", distill.lambda_lg, kNotNegative,
           "weight of the local-global loss L_lg, of patches that the teacher sees at their own size; 0: left out");
  s.number("distill.lambda_grad", distill.lambda_grad, kNotNegative, "weight of gradient matching L_grad; 0: left out");
  s.number("distill.lambda_feat", distill.lambda_feat, kPositive, "weight of the feature alignment L_feat");
  s.number("distill.alpha", distill.alpha, {0, 2},
           "L_feat leaves a token alone whose distance 1 - cos from its label is below this");
  s.number("distill.trim", distill.trim, {0, 1}, "share of L_sc's greatest pixel losses that is dropped, per image");
  s.choice("distill.detach", distill.detach,
           {{"nothing", ContextDetach::kNothing}, {"median", ContextDetach::kMedian}, {"both", ContextDetach::kBoth}},
           "statistics of the student that no gradient flows through");
  s.number("distill.anchor", distill.anchor, kNotNegative,
           "weight of |ln| of the ratio of the student's to the teacher's deviation, which nothing else holds");
  s.flag("distill.reference", distill.reference, "true: Hierarchical Depth Normalization as coded");
}

void bind_regions(Settings& s, RegionRecipe& regions) {
  s.choice("distill.region", regions.spec.centred, {{"random", false}, {"centre", true}},
           "square of each image that is learnt from: random place and side, or the middle of the short side");
  s.integer("distill.size", regions.size, {1, kMaxImageSide}, "pixels of a side that the student sees");
  s.integer("distill.patch", regions.spec.patch, {1, kMaxImageSide}, "pixels of a side of the teacher's input");
  s.integer("distill.patches", regions.spec.patches, {1, 64}, "of a region, for L_lg");
  s.integer("distill.least", regions.spec.least, {1, kMaxImageSide},
            "least side of a random region, in pixels of the image, if that is not smaller; at least distill.patch");
  s.number("distill.flip_probability", regions.spec.flip_probability, {0, 1}, "of random regions, left-right");
  s.texts(kTeachers, regions.teachers,
          "folders of stored maps, of whole images or of regions (`teach --regions`), and files of weights "
          "(.safetensors, .pth, .pt, .bin) of networks that run beside the student");
  s.numbers("distill.teacher_weights", regions.shares, kNotNegative,
            "in which teachers are drawn, one per step; []: equal ones");
  s.choice("distill.teacher_quantity", regions.unstated,
           {{"inverse_depth", Quantity::kInverseDepth}, {"depth", Quantity::kDepth}},
           "what the teachers' stored maps are that do not say it");
}

std::string text_of(double value) {
  std::ostringstream text;
  text.precision(10);
  text << value;
  return text.str();
}

// What maps of whole images are read as. Ground truth is depth.
TeacherSpec whole_image_spec(const Recipe& recipe, size_t teacher) {
  const DataRecipe& data = recipe.data;
  TeacherSpec spec;
  spec.folder = recipe.regions.teachers[teacher];
  spec.naming = data.teacher_naming;
  spec.extension = data.teacher_extension;
  spec.format.metres_per_unit = 1 / data.teacher_units_per_metre;
  spec.format.metres_per_float_unit = 1 / data.teacher_float_units;
  const bool depth = data.teacher_naming == TeacherNaming::kTruth || recipe.regions.unstated == Quantity::kDepth;
  spec.format.kind = depth ? kMetricDepth : kRelativeInverseDepth;
  return spec;
}

bool any_online(const Recipe& recipe) { return std::ranges::any_of(recipe.regions.teachers, names_weights); }

// Settings that nobody reads, as the teachers are.
void check_label_settings(const Recipe& recipe, const std::string& file) {
  const RegionRecipe &regions = recipe.regions, plain;
  const bool stored = regions.teachers.empty() || !std::ranges::all_of(regions.teachers, names_weights);
  check(stored || regions.unstated == plain.unstated, file,
        ": distill.teacher_quantity: expected nothing, as no teacher's maps are stored, found \"depth\"");
  check(any_online(recipe) || !recipe.features.empty() || recipe.label_batch == Recipe().label_batch, file, ": ",
        kLabelBatch, ": expected nothing, as no network makes labels, found ", recipe.label_batch);
}

std::string contents_id(const std::string& path) {
  const MappedFile file(path, "weights");
  return std::to_string(checksum64(file.bytes()));
}

void check_there(const std::string& weights) { check(fs::exists(weights), missing_weights(kTeachers, weights)); }

// The network of a teacher's weights.
std::shared_ptr<DepthModel> load_teacher(const Recipe& recipe, const std::string& weights) {
  check_there(weights);
  std::shared_ptr<DepthModel> network = load_network(weights);
  const int multiple = input_rule(network->name()).multiple, patch = recipe.regions.spec.patch;
  check(patch % multiple == 0, "distill.patch: expected a multiple of ", multiple, " for the teacher ", weights, ", a ",
        network->name(), ", found ", patch);
  return network;
}

template <class Network>
std::shared_ptr<Network> frozen(std::shared_ptr<Network> network, Device device, const std::string& weights) {
  try {
    network->to(device);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(concat_text(weights, ": ", error.what()));
  }
  network->eval();
  return network;
}

}  // namespace

void bind_distill(Settings& settings, Recipe& recipe) {
  bind_loss_parts(settings, recipe.distill);
  settings.text(kFeatures, recipe.features,
                "DINOv2 weights of the student's size, frozen: its features are the labels of L_feat; empty: left out");
  bind_regions(settings, recipe.regions);
  settings.integer(kLabelBatch, recipe.label_batch, {1, 4096},
                   "images that a network sees at a time which makes labels: a teacher, or that of distill.features");
  settings.number(kDriftFactor, recipe.drift_factor, {1, 1e30},
                  "of the student's scale against the teacher's since step 100, beyond which there is a warning");
}

void check_distill(const Recipe& recipe, const std::string& file) {
  const DataRecipe& data = recipe.data;
  const RegionRecipe& regions = recipe.regions;
  check(regions.spec.patch <= regions.spec.least, file, ": distill.least: expected at least distill.patch, ",
        regions.spec.patch, ", found ", regions.spec.least);
  check(regions.shares.empty() || regions.shares.size() == regions.teachers.size(), file,
        ": distill.teacher_weights: expected one for each of ", regions.teachers.size(), " teachers, found ",
        regions.shares.size());
  double shares = regions.shares.empty() ? 1 : 0;
  for (const double share : regions.shares) shares += share;
  check(shares > 0, file, ": distill.teacher_weights: expected one that is not 0, found none");
  const DistillOptions& losses = recipe.distill;
  check(losses.lambda_sc > 0 || losses.lambda_lg > 0 || losses.lambda_grad > 0, file,
        ": expected distill.lambda_sc, lambda_lg or lambda_grad above 0, found all 0");
  check(!losses.reference || losses.anchor == 0, file,
        ": distill.anchor: expected 0 beside distill.reference, which has no scale of its own, found ", losses.anchor);
  check(recipe.distill.norm != ContextNorm::kNone || regions.teachers.size() < 2, file,
        ": distill.norm is none: expected one teacher, found ", regions.teachers.size(),
        ", whose maps have no common scale");
  check_label_settings(recipe, file);
  if (data.train.list.empty()) return;  // `loss` reads maps alone
  const int multiple = input_rule(recipe.model.name).multiple;
  check(recipe.model.options.head == Head::kRelative, file, ": the loss ", recipe.loss_name,
        " needs model.head = \"relative\", found \"", name_of(recipe.model.options.head), '"');
  check(!regions.teachers.empty(), file, ": the loss ", recipe.loss_name,
        " learns from teachers: expected folders or weights in distill.teachers, found none");
  check(data.train.teacher.empty(), file, ": the loss ", recipe.loss_name,
        " has its teachers in distill.teachers: expected none in data.train.teacher, found ",
        one_line(data.train.teacher));
  check(recipe.features.empty() || std::holds_alternative<DepthAnythingConfig>(find_model(recipe.model.name).config),
        file, ": ", kFeatures, ": expected none for ", recipe.model.name, ", which has no DINOv2 encoder, found ",
        one_line(recipe.features));
  check(regions.size % multiple == 0, file, ": distill.size: expected a multiple of ", multiple, " for ",
        recipe.model.name, ", found ", regions.size);
  check(data.resize_height == 0 && data.train_packed.empty(), file, ": the loss ", recipe.loss_name,
        " takes regions of the stored images: expected neither data.resize_height nor data.train.packed");
}

Metadata distill_settings(const Recipe& recipe) {
  Recipe copy = recipe;
  for (std::string& teacher : copy.regions.teachers) {  // wherever the files lie
    if (names_weights(teacher)) teacher = "weights " + contents_id(teacher);
  }
  Settings settings;
  bind_distill(settings, copy);
  Metadata text{{"model.frozen", recipe.model.frozen}};
  for (const std::string& key : settings.keys()) {
    if (key != kDriftFactor) text[key] = format_toml(settings.value(key));
  }
  if (!any_online(recipe) && recipe.features.empty()) text.erase(kLabelBatch);
  if (!recipe.features.empty()) text[kFeatures] = contents_id(recipe.features);
  return text;
}

std::vector<RegionTask> region_tasks(const Recipe& recipe, const Dataset& data, size_t teacher, int64_t updates) {
  check_map_names(data, ".npy", RepeatedImages::kRefused);
  const LoaderOptions loading = loader_options(recipe);
  const int64_t steps = steps_per_epoch(data.size(), loading), batch = loading.batch_size;
  const int64_t end = steps_of_run(data.size(), loading, recipe.train.max_steps);
  const std::vector<double> shares = region_shares(recipe);
  const std::string folder = teacher_folder(recipe, teacher);
  std::vector<RegionTask> tasks;
  std::vector<int64_t> order;
  for (int64_t update = updates; update < end; ++update) {
    const int64_t epoch = update / steps, step = update % steps;
    if (order.empty() || step == 0) order = epoch_order(data.size(), loading, epoch);
    if (draw_teacher(shares, loading.seed, epoch, step) != static_cast<int64_t>(teacher)) continue;
    const int64_t last = std::min<int64_t>((step + 1) * batch, std::ssize(order));
    for (int64_t i = step * batch; i < last; ++i) {
      const int64_t index = order[static_cast<size_t>(i)];
      tasks.push_back({epoch, index, (fs::path(folder) / region_file(data.entry(index).image, epoch)).string()});
    }
  }
  return tasks;
}

std::vector<std::string> missing_labels(const Recipe& recipe, const Dataset& data, const RegionLoading& regions,
                                        int64_t updates) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < regions.teachers.size(); ++i) {
    if (regions.teachers[i]->every_sample()) continue;
    const std::vector<RegionTask> tasks = region_tasks(recipe, data, i, updates);
    const auto missing = [](const RegionTask& task) { return !fs::exists(task.path); };
    const auto first = std::ranges::find_if(tasks, missing);
    if (first == tasks.end()) continue;
    lines.push_back(concat_text(teacher_folder(recipe, i), ": expected ", tasks.size(),
                                " labels, of the regions that this run draws; missing are ",
                                std::count_if(first, tasks.end(), missing), ", the first ", first->path,
                                "; `teach --regions` writes those that are missing"));
  }
  return lines;
}

RegionFolderSettings region_settings(const Recipe& recipe, const Dataset& data, size_t teacher) {
  const RegionRecipe& regions = recipe.regions;
  PackSettings settings = pack_settings(data.spec());
  std::erase_if(settings, [](const auto& setting) {  // what does not bear on images and their order
    return setting.first == "teacher" || setting.first == "data.depth_folder" ||
           setting.first == "data.depth_units_per_metre" || setting.first == "data.depth_float_units";
  });
  settings.emplace_back("train.seed", std::to_string(recipe.train.seed));
  settings.emplace_back("distill.region", regions.spec.centred ? "centre" : "random");
  settings.emplace_back("distill.patch", std::to_string(regions.spec.patch));
  settings.emplace_back("distill.least", std::to_string(regions.spec.least));
  settings.emplace_back("distill.patches", std::to_string(region_spec(recipe).patches));
  settings.emplace_back("distill.flip_probability", text_of(regions.spec.flip_probability));
  if (regions.teachers.size() > 1) {  // else it has every step
    std::string shares;
    for (const double share : region_shares(recipe)) shares += (shares.empty() ? "" : " ") + text_of(share);
    settings.emplace_back("distill.teacher_weights", shares);
    settings.emplace_back("number of the teacher", std::to_string(teacher + 1));
    settings.emplace_back("train.batch_size", std::to_string(recipe.train.batch_size));
    settings.emplace_back("train.drop_last", recipe.train.drop_last ? "true" : "false");
  }
  const LoaderOptions loading = loader_options(recipe);
  const int64_t steps = steps_per_epoch(data.size(), loading);
  const int64_t read = steps_of_run(data.size(), loading, recipe.train.max_steps);
  return {settings, data.list_checksum(), (read + steps - 1) / steps, ""};
}

bool is_online(const Recipe& recipe, size_t teacher) { return names_weights(recipe.regions.teachers.at(teacher)); }

std::vector<std::string> label_weights(const Recipe& recipe) {
  std::vector<std::string> files;
  if (!distills(recipe)) return files;
  std::ranges::copy_if(recipe.regions.teachers, std::back_inserter(files), names_weights);
  if (!recipe.features.empty()) files.push_back(recipe.features);
  return files;
}

LabelNetworks label_networks(const Recipe& recipe, Device device) {
  LabelNetworks networks;
  if (!distills(recipe)) return networks;
  networks.most = recipe.label_batch;
  if (!recipe.features.empty()) {
    networks.encoder =
        frozen(std::shared_ptr(load_dinov2(recipe.model.name, recipe.features)), device, recipe.features);
  }
  if (!any_online(recipe)) return networks;
  std::vector<std::shared_ptr<const DepthModel>> teachers;
  for (const std::string& entry : recipe.regions.teachers) {
    teachers.push_back(names_weights(entry) ? frozen(load_teacher(recipe, entry), device, entry) : nullptr);
  }
  networks.teachers = std::make_shared<OnlineTeachers>(std::move(teachers), recipe.label_batch);
  return networks;
}

RegionSpec region_spec(const Recipe& recipe) {
  RegionSpec spec = recipe.regions.spec;
  if (recipe.distill.lambda_lg == 0.0f) spec.patches = 0;
  return spec;
}

std::vector<double> region_shares(const Recipe& recipe) {
  const RegionRecipe& regions = recipe.regions;
  return regions.shares.empty() ? std::vector<double>(regions.teachers.size(), 1.0) : regions.shares;
}

std::string teacher_folder(const Recipe& recipe, size_t teacher) {
  return (fs::path(recipe.data.root) / recipe.regions.teachers.at(teacher)).string();
}

std::optional<RegionLoading> region_loading(const Recipe& recipe, const Dataset& data) {
  if (!distills(recipe)) return {};
  const RegionRecipe& regions = recipe.regions;
  RegionLoading loading{region_spec(recipe), regions.size, {}, region_shares(recipe)};
  for (size_t i = 0; i < regions.teachers.size(); ++i) {
    if (is_online(recipe, i)) {
      const std::string& weights = regions.teachers[i];
      check_there(weights);
      loading.teachers.push_back(online_teacher(weights));
      continue;
    }
    const std::string folder = teacher_folder(recipe, i);
    check(fs::is_directory(folder), "distill.teachers: ", folder, ": expected a folder of maps, found none");
    const TeacherSpec whole = whole_image_spec(recipe, i);
    if (is_region_folder(folder)) {
      const bool depth = regions.unstated == Quantity::kDepth;
      loading.teachers.push_back(region_folder_teacher(
          folder, region_settings(recipe, data, i), depth ? kMetricDepth : kRelativeInverseDepth, regions.spec.patch));
    } else {
      check(loading.spec.patches == 0,
            "distill.lambda_lg: expected 0 with maps of whole images, which have no patches, "
            "found ",
            recipe.distill.lambda_lg, " with ", folder);
      check_map_names(data, whole);
      loading.teachers.push_back(whole_image_teacher(data.spec(), whole));
    }
  }
  return loading;
}

}  // namespace depthstill
