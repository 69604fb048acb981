#include "tools/recipe.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>

#include "engine/eval/metrics.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"
#include "models/model_table.h"
#include "tools/distill_recipe.h"
#include "tools/settings.h"

namespace depthstill {
namespace {

constexpr size_t kMaxInherit = 16;
constexpr double kMaxCount = 1e9;

void bind_model(Settings& s, ModelRecipe& model) {
  s.custom(
      "model.name",
      [&model](const TomlValue& value) {
        const std::vector<std::string> names = model_names();
        const std::string& name = detail::text_of(value);
        check(std::find(names.begin(), names.end(), name) != names.end(), "expected one of ",
              list_text(names, std::identity()), ", found '", name, "'");
        model.name = name;
      },
      [&model] { return TomlValue(model.name); }, "network: " + list_text(model_names(), std::identity()));
  s.choice("model.head", model.options.head,
           {{"dpm", Head::kDpm},
            {"regression", Head::kRegression},
            {"relative", Head::kRelative},
            {"relative_depth", Head::kRelativeDepth},
            {"canonical_depth", Head::kCanonicalDepth}},
           "depth bins with softmax, sigmoid x max_depth, or relative inverse depth; of da3mono_* relative_depth, of "
           "da3metric_* canonical_depth");
  s.integer("model.bins", model.options.bins, {2, 4096}, "of the dpm head, uniform over the depth range");
  s.number("model.min_depth", model.options.d_min, kPositive, "metres");
  s.number("model.max_depth", model.options.d_max, kPositive, "metres");
  s.integers("model.decoder_widths", model.options.decoder_widths, {1, 8192},
             "channels of a U-Net's decoder at each tap of the encoder, shallow to deep; []: the network's own");
  s.text("model.init", model.weights,
         "weights to start from (.safetensors or .pth: an encoder or a whole network); empty: random");
  s.choice("model.init_parts", model.parts, {{"all", InitialParts::kAll}, {"encoder", InitialParts::kEncoder}},
           "what model.init gives: all that it has, or the encoder alone, under a random head");
  s.choice("model.frozen", model.frozen,
           {{"nothing", std::string("nothing")}, {"encoder", std::string("encoder")}, {"head", std::string("head")}},
           "part that keeps the weights of model.init");
}

// The values of [loss] that its name implies; distill_any_depth has a table of its own.
LossOptions implied_loss(const Recipe& recipe) {
  if (recipe.loss_name == kDistillAnyDepthLoss) return {};
  return named_loss(recipe.loss_name, recipe.loss_alpha, recipe.loss_beta);
}

// The keys that pick a loss; all others of the table change single values of it.
bool names_loss(const std::string& key) { return key == "loss.name" || key == "loss.alpha" || key == "loss.beta"; }

void bind_loss(Settings& s, Recipe& recipe) {
  std::vector<std::string> names = loss_names();
  names.emplace_back(kDistillAnyDepthLoss);
  s.custom(
      "loss.name",
      [&recipe, names](const TomlValue& value) {
        const std::string& name = detail::text_of(value);
        check(std::ranges::count(names, name) > 0, "loss: expected one of ", list_text(names, std::identity()),
              "; got \"", name, '"');
        recipe.loss_name = name;
      },
      [&recipe] { return TomlValue(recipe.loss_name); },
      list_text(names, std::identity()) + "; sets the rest, or has the table [distill]");
  s.number("loss.alpha", recipe.loss_alpha, {0, 1}, "tie_kd: beta (alpha L_DPM + (1 - alpha) L_depth)");
  s.number("loss.beta", recipe.loss_beta, kPositive, "tie_kd");

  LossOptions& loss = recipe.loss;
  for (const Term& term : loss_terms()) {
    s.number(std::string("loss.") + term.name + "_weight", loss.weights[term.name], kNotNegative, term.doc);
  }
  s.choice("loss.target", loss.target, {{"teacher", DepthTarget::kTeacher}, {"truth", DepthTarget::kTruth}},
           "what is learnt from");
  s.integer("loss.top_rows", loss.top_rows, {0, kMaxImageSide}, "rows of the training crop without loss; KITTI 110");
  s.flag("loss.mask", loss.mask, "leave out pixels whose target is not finite, > 0 and in the model's range");
  s.choice("loss.dpm_target", loss.dpm.target, {{"mass", DpmTarget::kMass}, {"softmax_pdf", DpmTarget::kSoftmaxPdf}},
           "Eq. 2, or softmax over densities as the published code");
  s.choice("loss.kl", loss.dpm.kl,
           {{"student_teacher", KlDirection::kStudentTeacher}, {"teacher_student", KlDirection::kTeacherStudent}},
           "Eq. 5, or the published code's direction");
  s.number("loss.sigma", loss.dpm.sigma, kPositive, "metres, width of the teacher's Gaussian (Eq. 1)");
  s.number("loss.floor", loss.dpm.floor, {1e-37, 0.1}, "least target probability or density");
  s.number("loss.eps", loss.dpm.eps, kNotNegative, "inside the logarithm of teacher_student");
  s.number("loss.huber_delta", loss.huber_delta, kPositive, "metres, beyond which huber counts errors linearly");
  s.choice("loss.ssim_mode", loss.ssim_mode, {{"centred", SsimMode::kCentred}, {"reference", SsimMode::kReference}},
           "moments about the mean, or with absolute values as the published code");
}

void bind_data(Settings& s, DataRecipe& data) {
  s.text("data.root", data.root, "folder that lists and their paths are relative to (--data)");
  s.text("data.image_folder", data.image_folder, "below the root, what image paths in the lists are relative to");
  s.text("data.depth_folder", data.depth_folder, "below the root, what depth paths in the lists are relative to");
  std::vector<std::pair<std::string, CropRule>> crops;
  for (const CropRuleRow& row : crop_rules()) crops.emplace_back(row.name, row.rule);
  s.choice("data.crop", data.crop, crops, "of every image, before the resize");
  s.integer("data.resize_height", data.resize_height, {0, kMaxImageSide}, "pixels after the crop; 0: not resized");
  s.integer("data.resize_width", data.resize_width, {0, kMaxImageSide}, "pixels after the crop; 0: not resized");
  s.number("data.depth_units_per_metre", data.depth_units_per_metre, kPositive,
           "of ground truth in integers (PNG, .npy): millimetres 1000, KITTI 256");
  s.number("data.depth_float_units", data.depth_float_units, kPositive,
           "per metre, of ground truth in floats (.npy, .pfm)");
  s.number("data.teacher_units_per_metre", data.teacher_units_per_metre, kPositive,
           "of teacher maps in integers (PNG, .npy): millimetres 1000, TIE-KD 65535/80");
  s.number(
      "data.teacher_float_units", data.teacher_float_units, kPositive,
      "per metre, of teacher maps in floats (.npy, .pfm); those that version 0.1.0 wrote: teacher_units_per_metre");
  s.choice("data.teacher_naming", data.teacher_naming,
           {{"flat", TeacherNaming::kFlat}, {"beside", TeacherNaming::kBeside}, {"truth", TeacherNaming::kTruth}},
           "one folder with '/' as '_', the image's path, or the list's depth path");
  s.text("data.teacher_extension", data.teacher_extension, "of teacher maps: .png, .npy or .pfm");
  s.flag("data.sort_by_image", data.sort_by_image, "sort the lists by image path, as the published code");
  s.flag("data.skip_without_depth", data.skip_without_depth, "leave out lines whose ground truth is None");
  s.integer("data.workers", data.workers, {0, 256}, "threads that decode ahead");
  s.integer("data.cache_mib", data.cache_mib, {0, kMaxCount}, "MiB of decoded samples kept in memory");
  const std::pair<const char*, SplitRecipe*> splits[] = {
      {"train", &data.train}, {"val", &data.val}, {"test", &data.test}};
  for (const auto& [name, split] : splits) {
    const std::string table = std::string("data.") + name;
    s.text(table + ".list", split->list, "lines 'image depth' or 'image depth focal', relative to the root");
    s.text(table + ".teacher", split->teacher, "folder of this list's teacher maps; empty: none");
    if (split == &data.train) {
      s.text(table + ".packed", data.train_packed, "folder of `depthstill pack`, in place of the files; empty: none");
    }
  }
}

void bind_augment(Settings& s, Recipe& recipe) {
  AugmentSpec& augment = recipe.augment;
  constexpr Range probability{0, 1}, range{0, 0.99};
  s.flag("augment.on", recipe.augment_on, "false: whole frames, unchanged");
  s.integer("augment.crop_height", augment.crop.height, {0, kMaxImageSide}, "pixels of the training crop; 0: all rows");
  s.integer("augment.crop_width", augment.crop.width, {0, kMaxImageSide},
            "pixels of the training crop; 0: all columns");
  s.number("augment.rotate_probability", augment.rotate_probability, probability, "0..1");
  s.number("augment.max_degrees", augment.max_degrees, {0, 45}, "rotation is uniform in +- this");
  s.number("augment.flip_probability", augment.flip_probability, probability, "0..1, left-right");
  s.number("augment.colour_probability", augment.colour_probability, probability, "0..1");
  s.number("augment.gamma_range", augment.gamma_range, range, "gamma uniform in 1 +- this, on the scale 0..255");
  s.number("augment.brightness_range", augment.brightness_range, range, "factor uniform in 1 +- this");
  s.number("augment.gain_range", augment.gain_range, range, "factor per channel, uniform in 1 +- this");
  s.flag("augment.rotate_teacher", augment.rotate_teacher, "false: as the published code, which leaves it unrotated");
}

void bind_optimiser(Settings& s, Recipe& recipe) {
  AdamWOptions& optimiser = recipe.optimiser;
  Schedule& schedule = recipe.schedule;
  s.number("optimiser.lr", schedule.lr, kPositive, "largest learning rate (AdamW)");
  s.number("optimiser.encoder_lr_scale", recipe.encoder_lr_scale, kNotNegative, "the encoder learns at lr x this");
  s.number("optimiser.head_lr_scale", recipe.head_lr_scale, kNotNegative, "the head (decoder) learns at lr x this");
  s.number("optimiser.beta1", optimiser.params.beta1, {0, 0.9999}, "decay of the first moment");
  s.number("optimiser.beta2", optimiser.params.beta2, {0, 0.99999}, "decay of the second moment");
  s.number("optimiser.eps", optimiser.params.eps, kPositive, "added to the root of the second moment");
  s.number("optimiser.weight_decay", optimiser.params.weight_decay, kNotNegative, "on all parameters");
  s.number("optimiser.clip_norm", optimiser.clip_norm, kNotNegative, "global gradient norm; 0: no clipping");
  s.choice("schedule.kind", schedule.kind,
           {{"one_cycle", Schedule::Kind::kOneCycle},
            {"polynomial", Schedule::Kind::kPolynomial},
            {"constant", Schedule::Kind::kConstant}},
           "of the learning rate, per step");
  s.number("schedule.pct_start", schedule.pct_start, {0, 1}, "one_cycle: share of the steps that rise");
  s.number("schedule.div_factor", schedule.div_factor, {1, kMaxCount}, "one_cycle: starts at lr / this");
  s.number("schedule.final_div_factor", schedule.final_div_factor, {1, kMaxCount},
           "one_cycle: ends at the start / this");
  s.number("schedule.power", schedule.power, kPositive, "polynomial");
  s.number("schedule.min_lr", schedule.min_lr, kNotNegative, "polynomial: lr at the end");
  s.integer("schedule.warmup_steps", schedule.warmup_updates, {0, kMaxCount},
            "constant and polynomial: linear warm-up");
  s.number("schedule.warmup_ratio", schedule.warmup_ratio, {0, 1}, "warm-up starts at lr x this");
}

void bind_run(Settings& s, Recipe& recipe) {
  TrainRecipe& train = recipe.train;
  s.integer("train.epochs", train.epochs, {1, kMaxCount}, "passes over the training list");
  s.integer("train.max_steps", train.max_steps, {0, kMaxCount}, "end after this many steps; 0: epochs decide");
  s.integer("train.batch_size", train.batch_size, {1, 65536}, "images per step");
  s.choice("train.precision", train.precision, {{"fp32", std::string("fp32")}, {"bf16", std::string("bf16")}},
           "of activations; weights and statistics stay fp32");
  s.integer("train.seed", train.seed, {0, 9e15}, "of weights, order and augmentation");
  s.flag("train.drop_last", train.drop_last, "leave out an incomplete last batch");
  s.integer("train.log_every", train.log_every, {1, kMaxCount}, "steps between lines of metrics.jsonl");
  s.integer("train.save_every", train.save_every, {0, kMaxCount},
            "steps between writings of last.safetensors; 0: after epochs only");
  s.integer("train.checkpoint_keep", train.checkpoint_keep, {1, kMaxCount}, "newest checkpoints that stay on disk");
}

void bind_eval(Settings& s, Recipe& recipe) {
  EvalRecipe& eval = recipe.eval;
  std::vector<std::pair<std::string, std::string>> sets, boxes = {{"default", "default"}, {"none", "none"}};
  for (const Benchmark& row : benchmarks()) sets.emplace_back(row.name, row.name);
  for (const std::string& box : box_names()) boxes.emplace_back(box, box);
  s.choice("eval.protocol", eval.protocol, sets, "352x1216 frame + Garg crop, Eigen crop, or every pixel");
  s.choice("eval.crop", eval.crop, boxes, "instead of the protocol's");
  std::vector<std::pair<std::string, std::string>> rules = {{"default", "default"}};
  for (const ProtocolRow& row : protocols()) rules.emplace_back(row.name, row.name);
  s.choice("eval.rules", eval.rules, rules, "named protocol that the data set is scored by: limits, crop, fit");
  std::vector<std::pair<std::string, Alignment>> aligns;
  for (const AlignmentRow& row : alignments()) aligns.emplace_back(row.name, row.alignment);
  s.choice("eval.align", eval.align, aligns,
           "of each prediction with ground truth; relative models need an affine one");
  s.flag("eval.flip", eval.flip, "average with the prediction for the mirrored image");
  s.flag("eval.median_scaling", eval.median_scaling, "another name for eval.align = \"median\"");
  s.integer("eval.every", eval.every, {1, kMaxCount}, "epochs between evaluations");
  s.integer("eval.report_panels", eval.report_panels, {0, 64},
            "pictures in report.html, half of them of the worst images");
  s.custom(
      "select.metric",
      [&recipe](const TomlValue& value) { recipe.select.metric = metric_field(detail::text_of(value)).name; },
      [&recipe] { return TomlValue(recipe.select.metric); },
      "that the kept model is chosen by: abs_rel, rmse, d1, ...");
  s.choice("select.on", recipe.select.on, {{"val", std::string("val")}, {"test", std::string("test")}},
           "list of the choice; test is what the published runs did and flatters the result");
}

Settings bind(Recipe& recipe) {
  Settings settings;
  bind_model(settings, recipe.model);
  bind_loss(settings, recipe);
  bind_distill(settings, recipe);
  bind_data(settings, recipe.data);
  bind_augment(settings, recipe);
  bind_optimiser(settings, recipe);
  bind_run(settings, recipe);
  bind_eval(settings, recipe);
  return settings;
}

// Version 0.1.0 printed the rows that followed from the name of a loss, 110 for some, as a comment with this text. They
// do not follow from it any more, and a run of before goes on with those that it had.
void restore_printed_rows(const std::string& text, const std::string& path, std::vector<TomlEntry>& entries) {
  constexpr const char *kBegin = "\n# top_rows = ", *kEnd = "# rows of the training crop that are left out\n";
  const size_t begin = text.find(kBegin), end = text.find(kEnd);
  if (begin == std::string::npos || end == std::string::npos || text.find('\n', begin + 1) < end) return;
  const int64_t rows = std::strtoll(text.c_str() + begin + std::strlen(kBegin), nullptr, 10);
  entries.push_back({"loss.top_rows", TomlValue(rows), path});
}

// Entries of the file and, before them, of what it inherits.
void collect(const std::filesystem::path& path, std::vector<std::filesystem::path>& chain,
             std::vector<TomlEntry>& entries, const std::string& asked_by) {
  std::error_code unreadable;  // read_text says so
  const std::filesystem::path resolved = std::filesystem::weakly_canonical(path, unreadable);
  check(std::find(chain.begin(), chain.end(), resolved) == chain.end() && chain.size() < kMaxInherit, asked_by,
        ": 'inherit' leads back to ", one_line(path.string()));
  chain.push_back(resolved);
  std::string text;
  try {
    text = read_text(path.string());
  } catch (const Error& error) {
    if (asked_by.empty()) throw;
    fail(asked_by, ": 'inherit': ", one_line(error.what()));
  }
  std::vector<TomlEntry> own = parse_toml(text, path.string());
  restore_printed_rows(text, path.string(), own);
  const auto inherit = std::find_if(own.begin(), own.end(), [](const TomlEntry& e) { return e.key == "inherit"; });
  if (inherit != own.end()) {
    const auto* base = std::get_if<std::string>(&inherit->value);
    check(base != nullptr && !base->empty(), inherit->where, ": 'inherit': expected a file name, found ",
          describe_type(inherit->value));
    const std::string where = inherit->where;
    const std::filesystem::path base_path = path.parent_path() / *base;
    own.erase(inherit);
    collect(base_path, chain, entries, where);
  }
  entries.insert(entries.end(), own.begin(), own.end());
}

// What the loss does not read is refused, not passed over.
void check_unread(const Recipe& recipe, const std::string& file) {
  Recipe now = recipe, plain;
  plain.loss_name = recipe.loss_name;
  plain.loss = implied_loss(plain);
  const Settings settings = bind(now), defaults = bind(plain);
  const auto is_read = [distils = distills(recipe)](const std::string& key) {
    if (!distils) return !key.starts_with("distill.");
    return !key.starts_with("augment.") && (!key.starts_with("loss.") || key == "loss.name");
  };
  for (const std::string& key : settings.keys()) {
    const TomlValue value = settings.value(key);
    check(is_read(key) || value == defaults.value(key), file, ": ", key, ": expected nothing, as the loss ",
          recipe.loss_name, " does not read it, found ", format_toml(value));
  }
}

void check_consistency(const Recipe& recipe, const std::string& file) {
  check_unread(recipe, file);
  const ModelOptions& options = recipe.model.options;
  check(options.d_min < options.d_max, file, ": model.min_depth is ", options.d_min, ", expected less than max_depth ",
        options.d_max);
  check(recipe.model.parts == InitialParts::kAll || !recipe.model.weights.empty(), file,
        ": model.init_parts is encoder: expected its weights in model.init, found none");
  check(recipe.model.frozen == "nothing" || !recipe.model.weights.empty(), file, ": model.frozen is ",
        recipe.model.frozen, ": expected its weights in model.init, found none");
  check(recipe.model.frozen != "head" || recipe.model.parts == InitialParts::kAll, file,
        ": model.frozen is head: expected model.init_parts = \"all\", found encoder");
  const DataRecipe& data = recipe.data;
  check((data.resize_height == 0) == (data.resize_width == 0), file,
        ": data.resize_height and resize_width: expected both or neither");
  if (recipe.augment_on && data.resize_height > 0) {
    check(recipe.augment.crop.height <= data.resize_height && recipe.augment.crop.width <= data.resize_width, file,
          ": augment.crop is ", recipe.augment.crop, ", larger than the resized image ",
          ImageSize{data.resize_width, data.resize_height});
  }
  const std::string& extension = data.teacher_extension;
  check(extension == ".png" || extension == ".npy" || extension == ".pfm", file,
        ": data.teacher_extension: expected .png, .npy or .pfm, found '", printable(extension), "'");
  check(!recipe.loss.weights.needs_bins() || options.head == Head::kDpm, file, ": the loss ", recipe.loss_name,
        " needs model.head = \"dpm\"");
  if (distills(recipe)) {
    check_distill(recipe, file);
  } else {
    check(data.train.list.empty() || recipe.loss.target == DepthTarget::kTruth || !data.train.teacher.empty(), file,
          ": the loss ", recipe.loss_name,
          " learns from a teacher: expected a folder in data.train.teacher, found none");
  }
  try {
    static_cast<void>(
        find_set(find_protocol(recipe.eval.rules == "default" ? "" : recipe.eval.rules, recipe.eval.protocol),
                 recipe.eval.protocol));
  } catch (const Error& error) {
    fail(file, ": eval.rules: ", error.what());
  }
  check(!recipe.eval.median_scaling || recipe.eval.align == Alignment::kNone || recipe.eval.align == Alignment::kMedian,
        file, ": eval.median_scaling: expected eval.align = \"median\" or none beside it, found \"",
        row_of(recipe.eval.align).name, '"');
  try {
    static_cast<void>(protocol_of(recipe));
  } catch (const Error& error) {
    fail(file, ": eval.crop is set, but ", one_line(error.what()));
  }
}

}  // namespace

Recipe load_recipe(const std::string& path, std::span<const std::string> overrides) {
  Recipe recipe;
  recipe.name = std::filesystem::path(path).stem().string();
  std::vector<std::filesystem::path> chain;
  std::vector<TomlEntry> entries;
  collect(path, chain, entries, "");
  for (const std::filesystem::path& file : chain) recipe.files.push_back(file.string());
  const Settings settings = bind(recipe);
  for (const std::string& assignment : overrides) entries.push_back(settings.parse_override(assignment));
  // First what picks the loss, then everything else on top of it.
  std::stable_partition(entries.begin(), entries.end(), [](const TomlEntry& entry) { return names_loss(entry.key); });
  bool loss_is_set = false;
  for (const TomlEntry& entry : entries) {
    if (!loss_is_set && !names_loss(entry.key)) {
      recipe.loss = implied_loss(recipe);
      loss_is_set = true;
    }
    settings.apply(entry);
  }
  if (!loss_is_set) recipe.loss = implied_loss(recipe);
  recipe.optimiser.lr = recipe.schedule.lr;
  check_consistency(recipe, path);
  return recipe;
}

std::string print_recipe(const Recipe& recipe) {
  // Values that follow from the loss's name are printed as comments, so that --set loss.alpha changes them still.
  Recipe copy = recipe, named = recipe;
  named.loss = implied_loss(recipe);
  return bind(copy).print(
      [plain = bind(named), distils = distills(recipe)](const std::string& key, const TomlValue& value) {
        if (key.starts_with("distill.")) return !distils;
        if (key.starts_with("augment.")) return distils;
        return key.starts_with("loss.") && key != "loss.top_rows" && !names_loss(key) && plain.value(key) == value;
      });
}

bool has_split(const Recipe& recipe, const std::string& split) {
  const DataRecipe& data = recipe.data;
  return !(split == "train" ? data.train : split == "val" ? data.val : data.test).list.empty();
}

std::string report_split(const Recipe& recipe) {
  if (has_split(recipe, recipe.select.on)) return recipe.select.on;
  return has_split(recipe, "test") ? "test" : "";
}

DatasetSpec dataset_spec(const Recipe& recipe, const std::string& split) {
  check(split == "train" || split == "val" || split == "test", "expected train, val or test, got '", split, "'");
  check(has_split(recipe, split), "recipe ", recipe.name, ": expected a list in data.", split, ".list, found none");
  const DataRecipe& data = recipe.data;
  const SplitRecipe& chosen = split == "train" ? data.train : split == "val" ? data.val : data.test;
  DatasetSpec spec;
  if (split == "train") spec.packed = data.train_packed;
  spec.root = data.root;
  spec.list = chosen.list;
  spec.image_folder = data.image_folder;
  spec.depth_folder = data.depth_folder;
  spec.crop = data.crop;
  if (data.resize_height > 0) spec.resize = ImageSize{data.resize_width, data.resize_height};
  spec.depth.metres_per_unit = 1 / data.depth_units_per_metre;
  spec.depth.metres_per_float_unit = 1 / data.depth_float_units;
  spec.min_depth = static_cast<double>(recipe.model.options.d_min);
  spec.max_depth = static_cast<double>(recipe.model.options.d_max);
  if (!chosen.teacher.empty()) {
    TeacherSpec teacher;
    teacher.folder = chosen.teacher;
    teacher.naming = data.teacher_naming;
    teacher.extension = data.teacher_extension;
    const bool truth = data.teacher_naming == TeacherNaming::kTruth;
    teacher.format = {1 / data.teacher_units_per_metre,
                      truth ? MapFormat::Unusable::kHole : MapFormat::Unusable::kRefused, kMetricDepth,
                      1 / data.teacher_float_units};
    spec.teacher = teacher;
  }
  spec.order = data.sort_by_image ? ListOrder::kByImage : ListOrder::kAsWritten;
  spec.skip_without_depth = data.skip_without_depth;
  spec.allow_outside = data.allow_outside;
  return spec;
}

AugmentSpec augment_of(const Recipe& recipe) {
  AugmentSpec augment = recipe.augment;
  augment.multiple = input_rule(recipe.model.name).multiple;
  return augment;
}

Protocol protocol_of(const Recipe& recipe) {
  const EvalRecipe& eval = recipe.eval;
  Protocol protocol = make_protocol(eval.protocol, eval.rules == "default" ? "" : eval.rules);
  // Published protocols have a range of their own.
  if (protocol.dataset == "plain" && std::isfinite(protocol.max_depth)) {
    protocol.min_depth = detail::shortest(recipe.model.options.d_min);
    protocol.max_depth = detail::shortest(recipe.model.options.d_max);
  }
  if (eval.crop != "default") protocol.box = find_box(find_benchmark(protocol.dataset), eval.crop);
  protocol.alignment = eval.median_scaling ? Alignment::kMedian : eval.align;
  return protocol;
}

LoaderOptions loader_options(const Recipe& recipe) {
  LoaderOptions loading;
  loading.batch_size = recipe.train.batch_size;
  loading.workers = recipe.data.workers;
  loading.drop_last = recipe.train.drop_last;
  loading.seed = recipe.train.seed;
  loading.epochs = recipe.train.epochs;
  loading.cache_bytes = static_cast<size_t>(recipe.data.cache_mib) << 20;
  if (recipe.augment_on) loading.views = one_crop(augment_of(recipe));
  return loading;
}

void freeze_part(DepthModel& model, const Recipe& recipe) {
  const std::string& frozen = recipe.model.frozen;
  if (frozen != "nothing") model.freeze(frozen == "encoder" ? model.parts().encoder : model.parts().head);
}

std::vector<ParameterGroup> parameter_groups(const Recipe& recipe, const DepthModel& model) {
  return {{model.parts().encoder, recipe.encoder_lr_scale}, {model.parts().head, recipe.head_lr_scale}};
}

NetworkRecord network_record(const Recipe& recipe) {
  TrainedUse use;
  use.flip = recipe.eval.flip;
  use.dtype = recipe.train.precision == "bf16" ? DType::kBf16 : DType::kFloat;
  const DataRecipe& data = recipe.data;
  if (distills(recipe)) {
    use.side = recipe.regions.size;
  } else if (data.resize_height > 0) {
    const ImageSize size{data.resize_width, data.resize_height};
    if (data.crop == CropRule::kNone) {
      use.input_size = size;
    } else {
      const Rect cropped = crop_rect(data.crop, {1242, 480}, "recipe");  // any image that is large enough
      use.scale_height = static_cast<double>(size.height) / cropped.height;
      use.scale_width = static_cast<double>(size.width) / cropped.width;
    }
  }
  return {recipe.model.name, recipe.model.options, use};
}

}  // namespace depthstill
