#include "tools/train_run.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "engine/allocator.h"
#include "engine/eval/evaluation_text.h"
#include "engine/io/atomic_file.h"
#include "engine/io/image.h"
#include "engine/train/trainer.h"
#include "kernels/core/parallel.h"
#include "models/imagenet.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "tools/data_check.h"
#include "tools/distill_recipe.h"
#include "tools/drift_watch.h"
#include "tools/evaluate_model.h"
#include "tools/interrupt.h"
#include "tools/label_notes.h"
#include "tools/metrics_file.h"
#include "tools/output_plan.h"
#include "tools/progress.h"
#include "tools/report/report.h"
#include "tools/report/run_log.h"
#include "tools/run_folder.h"
#include "tools/training_baselines.h"
#include "tools/training_needs.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDecoder = "jpeg_decoder";  // entry of last.safetensors

std::string epoch_file(int64_t number) {
  char text[48];
  std::snprintf(text, sizeof(text), "epoch_%03lld.safetensors", static_cast<long long>(number));
  return text;
}

// A Selection says which epoch's model is kept, and whether one is still to be judged.
struct Selection {
  int64_t unjudged_epoch = -1;  // trained, but its validation was interrupted; -1: none
  int64_t best_epoch = -1;      // -1: none yet
  double best_value = 0;        // value of the selection metric

  Metadata metadata() const {
    return {{"unjudged_epoch", metadata_text(unjudged_epoch)},
            {"best_epoch", metadata_text(best_epoch)},
            {"best_value", metadata_text(best_value)}};
  }
  static Selection from(const Metadata& saved, const std::string& path) {
    return {metadata_number<int64_t>(saved, "unjudged_epoch", path),
            metadata_number<int64_t>(saved, "best_epoch", path), metadata_number<double>(saved, "best_value", path)};
  }
};

// Ends with the first problem, and says how many there are besides.
void fail_if(const std::vector<std::string>& problems) {
  if (problems.empty()) return;
  const size_t more = problems.size() - 1;
  fail(problems.front(), more > 0 ? concat_text(" (and ", more, " more: see check-data)") : "");
}

class TrainRun final : public TrainObserver {
 public:
  TrainRun(const Recipe& recipe, const TrainOptions& options);
  void run();

 private:
  // TrainObserver
  bool stop() override { return interrupted(); }
  void note(const std::string& line) override { log_line(line); }
  void before_step(const Batch& batch) override;
  void looked(const std::string& steps, const Batch* batch) override;
  void log(const StepRecord& record) override;
  void after_step(int64_t updates) override;
  void save_point() override { save_last(); }
  void after_epoch(int64_t epoch) override;

  void check_recipe() const;
  void check_list(const Dataset& data) const;
  void check_first_sample(const TrainingNeeds& needs) const;
  void claim_folder();
  LoaderOptions loading() const;
  void make_network();
  void recalibrate();
  void train_all();
  bool train_steps();
  void judge_epoch();
  Evaluation validate(const std::string& split, const EvaluateExtras& extras = {});
  void save_last();
  void name_changed_decoder(const Metadata& saved) const;
  void write_final_report();
  std::string path(const std::string& name) const { return (fs::path(options_.out) / name).string(); }

  const Recipe recipe_;
  const TrainOptions options_;
  std::shared_ptr<const Dataset> data_;
  std::optional<RunFolder> folder_;
  std::unique_ptr<DepthModel> model_;
  std::unique_ptr<Objective> objective_;
  std::optional<RegionLoading> regions_;  // of a recipe that distils
  Metadata distill_settings_;             // its settings that a checkpoint states
  LabelNetworks labels_;
  std::optional<Trainer> trainer_;
  std::optional<MetricsFile> metrics_;
  Selection selection_;
  std::optional<Progress> progress_;
  std::string note_;  // text behind the progress bar
  LabelNotes label_notes_;
  DriftWatch drift_;
  std::vector<bool> met_;   // samples that were in a batch of this process
  int64_t empty_maps_ = 0;  // of them, those without anything to learn from
};

TrainRun::TrainRun(const Recipe& recipe, const TrainOptions& options)
    : recipe_(recipe), options_(options), drift_(recipe.drift_factor, recipe.distill.anchor > 0) {
  data_ = std::make_shared<Dataset>(dataset_spec(recipe_, "train"));
  regions_ = region_loading(recipe_, *data_);
  check_recipe();
  if (regions_) distill_settings_ = distill_settings(recipe_);
  labels_ = label_networks(recipe_, options_.device);
  claim_folder();
  make_network();
  objective_ = make_objective(*model_, recipe_, labels_, options_.dead_rows, options_.fused_head);
  const TrainRecipe& train = recipe_.train;
  const TrainerOptions training{.loading = loading(),
                                .schedule = recipe_.schedule,
                                .optimiser = recipe_.optimiser,
                                .max_steps = train.max_steps,
                                .log_every = train.log_every,
                                .save_every = train.save_every,
                                .device = options_.device,
                                .dtype = options_.dtype,
                                .graph = options_.graph};
  trainer_.emplace(data_, *objective_, training, *this);
  if (options_.resume) {
    Metadata expected = describe(*model_);
    expected.insert(distill_settings_.begin(), distill_settings_.end());
    const Metadata saved = trainer_->resume(path("last.safetensors"), expected);
    if (regions_) fail_if(missing_labels(recipe_, *data_, *regions_, trainer_->position().updates));
    selection_ = Selection::from(saved, path("last.safetensors"));
    drift_.restore(saved);
    name_changed_decoder(saved);
    log_line(concat_text("resuming at epoch ", trainer_->position().epoch + 1, ", step ", trainer_->position().step));
  }
  write_file(path("recipe.toml"), print_recipe(recipe_));
  metrics_.emplace(path("metrics.jsonl"), options_.resume);
}

// Checks what would otherwise fail only after some work.
void TrainRun::check_recipe() const {
  if (recipe_.select.on == "test") {
    log_line("note: the kept model is chosen on the test list, as the published runs did; its test figures are biased");
  }
  check(
      !is_exponential(recipe_.model.options.head), recipe_.model.name,
      ": expected a student with the head dpm, regression or relative; Depth Anything 3's networks teach, and the loss "
      "that trains them is not here yet");
  TrainingNeeds needs = needs_of(recipe_);
  if (options_.resume) needs.weights.clear();
  fail_if(training_problems(*data_, needs));
  if (regions_ && regions_->spec.patches > 0 && recipe_.distill.patch_norm == ContextNorm::kNone &&
      regions_->teachers.size() > 1) {
    log_line("warning: distill.patch_norm is none with several teachers, whose maps have no common scale");
  }
  if (regions_ && !options_.resume) fail_if(missing_labels(recipe_, *data_, *regions_));
  check_first_sample(needs);
  check_list(*data_);
  const std::string split = report_split(recipe_);
  if (split.empty()) return;
  const Dataset data(dataset_spec(recipe_, split));
  check_list(data);
  const Sample sample = data.load_image(0);
  check_frame(protocol_of(recipe_), sample);
  check_kind(protocol_of(recipe_), kind_of(recipe_.model.options.head), recipe_.model.name + ": what it predicts");
  check_scored(data, protocol_of(recipe_));
}

void TrainRun::check_list(const Dataset& data) const {
  const DataFindings found = compare_with_truth(data);
  for (const std::string& note : found.notes) log_line("note: " + note);
  std::vector<std::string> problems = found.problems;
  if (!options_.resume) {  // a run that began with such a list goes on with it
    const std::vector<std::string> repeated = repeated_lines(data);
    problems.insert(problems.end(), repeated.begin(), repeated.end());
  }
  fail_if(problems);
}

// Of the sizes, the first image says what a list of one size has; check-data looks at all.
void TrainRun::check_first_sample(const TrainingNeeds& needs) const {
  const Sample sample = data_->load_image(0);
  const ImageSize size = sample.image.size();
  const std::string problem = frame_problem(needs, size, size);
  check(problem.empty(), sample.where, ": ", problem);
}

// Names each map without anything to learn from when it is met first.
void TrainRun::before_step(const Batch& batch) {
  if (regions_) {
    const int64_t step = trainer_->position().updates + 1;
    if (const auto line = label_notes_.after_batch(batch, step, *regions_, *data_)) log_line(*line);
    return;
  }
  constexpr int64_t kMostNotes = 20;
  met_.resize(static_cast<size_t>(data_->size()));
  const DepthRange range = range_of(data_->spec());
  for (const BatchItem& item : batch.items) {
    const Sample& sample = *item.sample;
    if (met_.at(static_cast<size_t>(sample.index))) continue;
    met_[static_cast<size_t>(sample.index)] = true;
    if (has_target(target_of(sample, recipe_.loss.target), range, recipe_.loss.top_rows)) continue;
    if (++empty_maps_ > kMostNotes) continue;
    log_line(concat_text("note: ", sample.where, ": ", sample.name, ": ", no_target_text(range, recipe_.loss.top_rows),
                         empty_maps_ == kMostNotes ? "; check-data names all such samples" : ""));
  }
}

// Counts the labels that online teachers have made, which the device knows alone, and names those of the last step.
void TrainRun::looked(const std::string& steps, const Batch* batch) {
  if (!labels_.teachers) return;
  const LabelTally tally = labels_.teachers->tally();
  const auto faults = [&] { return labels_.teachers->faults(); };
  if (const auto line = label_notes_.after_steps(tally, steps, batch, faults)) log_line(*line);
}

void TrainRun::claim_folder() {
  OutputPlan plan(Existing::kOverwrite, options_.out);
  for (const char* name :
       {"recipe.toml", "metrics.jsonl", "last.safetensors", "best.safetensors", "report.html", kBaselinesFile}) {
    plan.writes(path(name), name);
  }
  for (int64_t epoch = 1; recipe_.train.checkpoint_keep > 0 && epoch <= recipe_.train.epochs; ++epoch) {
    plan.writes(path(epoch_file(epoch)), epoch_file(epoch));
  }
  if (!options_.resume) {  // a run may be resumed with the recipe that is in its folder
    plan.reads(*data_);
    plan.reads(recipe_);
    plan.reads(recipe_.model.weights);
    for (const std::string& weights : label_weights(recipe_)) plan.reads(weights);
  }
  plan.approve();
  folder_.emplace(options_.out, options_.resume);
}

void TrainRun::make_network() {
  const NetworkRecord record = network_record(recipe_);
  model_ = make_model(record.architecture, record.options);
  model_->set_trained_use(record.use);
  bool folded = false;
  if (!options_.resume) {
    model_->initialize(recipe_.train.seed);
    if (!recipe_.model.weights.empty()) {
      const InitialWeights initial = load_initial(*model_, recipe_.model.weights, recipe_.model.parts);
      folded = initial.folded;
      log_line(initial.text);
    }
  }
  model_->to(options_.device);
  if (folded) recalibrate();
  freeze_part(*model_, recipe_);
}

LoaderOptions TrainRun::loading() const {
  LoaderOptions loading = loader_options(recipe_);
  loading.regions = regions_;
  return loading;
}

// Takes statistics of the training images for an encoder that came without any.
void TrainRun::recalibrate() {
  LoaderOptions loading = this->loading();
  if (regions_) {
    loading.regions->teachers = {unknowing_teacher()};
    loading.regions->shares = {1.0};
  }
  loading.drop_last = false;
  loading.epochs = 1;
  loading.cache_bytes = 0;
  if (recipe_.augment_on && !regions_) {
    AugmentSpec augment = augment_of(recipe_);
    augment.rotate_probability = augment.colour_probability = 0;
    loading.views = one_crop(augment);
  }
  Loader loader(data_, loading);
  std::vector<Tensor> images;
  constexpr int64_t kImages = 32;
  for (int64_t count = 0; count < kImages;) {
    const auto batch = loader.next();
    if (!batch) break;
    images.push_back(to_tensors(*batch, DType::kFloat, options_.device).at(0).image);
    count += static_cast<int64_t>(batch->items.size());
  }
  recalibrate_batch_norm(*model_->imagenet_encoder(), images);
}

void TrainRun::run() {
  try {
    train_all();
    write_final_report();
  } catch (const Interrupted&) {
    log_line(concat_text("interrupted: everything up to step ", trainer_->position().updates, " is in ",
                         path("last.safetensors"), "; go on with --resume"));
    throw;
  }
}

void TrainRun::train_all() {
  const int64_t total = trainer_->total_updates(), begin = trainer_->position().updates;
  log_line(concat_text(model_->name(), " with ", model_->parameter_count(), " parameters on ", options_.device, ", ",
                       options_.dtype, ", ", num_threads(), " threads; ", data_->size(), " images, ",
                       trainer_->steps_per_epoch(), " steps an epoch, ", total, " steps"));
  if (selection_.unjudged_epoch >= 0) judge_epoch();
  if (begin >= total) return;
  progress_.emplace("train", "step", total, begin);
  if (!train_steps()) {
    save_last();
    throw Interrupted{};
  }
  progress_->finish();
  const MemoryStats memory = memory_stats(options_.device);
  log_line(concat_text("trained ", trainer_->position().updates, " steps, peak memory ",
                       format_bytes(static_cast<double>(memory.peak)), "; waited ",
                       format_duration(trainer_->seconds_waiting()), " for data"));
}

// Adds to a step's message on memory what takes less; a validation's names its image.
bool TrainRun::train_steps() {
  try {
    return trainer_->run();
  } catch (const OutOfMemory& error) {
    if (selection_.unjudged_epoch >= 0) throw;
    throw OutOfMemory(concat_text("a step on ", recipe_.train.batch_size, " images: ", error.what(),
                                  "; a smaller train.batch_size or training crop takes less"));
  }
}

void TrainRun::log(const StepRecord& record) {
  metrics_->write(to_json_line(record));
  if (const auto line = drift_.look(record)) log_line(*line);
  char text[64];
  note_ = "epoch " + std::to_string(record.epoch + 1);
  for (const auto& [name, value] : record.losses) {
    std::snprintf(text, sizeof(text), "  %s %.4g", name.c_str(), value);
    note_ += text;
  }
  std::snprintf(text, sizeof(text), "  %.2f img/s  lr %.2e  ", record.images_per_second, record.lr);
  note_ += text + format_bytes(static_cast<double>(memory_stats(options_.device).peak));
}

void TrainRun::after_step(int64_t updates) {
  progress_->update(updates, note_);
  if (options_.on_step) options_.on_step(updates);
}

// Runs of before this was kept were decoded by stb_image.
void TrainRun::name_changed_decoder(const Metadata& saved) const {
  const auto found = saved.find(kDecoder);
  const std::string before = found == saved.end() ? "stb_image" : found->second, now = image_decoders().jpeg;
  if (before == now) return;
  log_line(concat_text("note: this run read JPEG files by ", before, " and goes on with ", now,
                       ", whose pixels may differ by a few levels (docs/images.md)"));
}

void TrainRun::save_last() {
  Metadata metadata = metadata_of(*model_);
  metadata[kDecoder] = image_decoders().jpeg;
  metadata.merge(selection_.metadata());
  if (regions_) metadata.merge(drift_.metadata());
  metadata.insert(distill_settings_.begin(), distill_settings_.end());
  trainer_->save(path("last.safetensors"), metadata);
}

// Leaves a checkpoint, then the figures that decide whether it is the best so far.
void TrainRun::after_epoch(int64_t epoch) {
  if (const auto line = label_notes_.after_epoch(epoch)) log_line(*line);
  const bool chosen = has_split(recipe_, recipe_.select.on);
  const bool last = trainer_->position().updates == trainer_->total_updates();
  if (chosen && (last || (epoch + 1) % recipe_.eval.every == 0)) selection_.unjudged_epoch = epoch;
  if (!chosen) {  // nothing to choose by: the last model is kept
    selection_.best_epoch = epoch;
    if (last) save_model(path("best.safetensors"), *model_, epoch + 1);
  }
  save_last();
  if (recipe_.train.checkpoint_keep > 0) {
    save_model(path(epoch_file(epoch + 1)), *model_, epoch + 1);
    fs::remove(path(epoch_file(epoch + 1 - recipe_.train.checkpoint_keep)));
  }
  if (selection_.unjudged_epoch >= 0) judge_epoch();
}

// Validates the epoch that was trained last and keeps it if it is the best. If this is interrupted, a resumed run does
// it first.
void TrainRun::judge_epoch() {
  const int64_t epoch = selection_.unjudged_epoch;
  const std::string& split = recipe_.select.on;
  const Evaluation evaluation = validate(split);
  EvalRecord record;
  record.step = trainer_->position().updates;
  record.epoch = epoch;
  record.split = split;
  record.images = evaluation.summary.images;
  record.metrics = evaluation.summary.mean;
  check(record.images > 0, "data.", split,
        ".list: expected ground truth that the protocol counts in at least one image, found none");
  metrics_->write(to_json_line(record));
  const MetricField& field = metric_field(recipe_.select.metric);
  const double value = record.metrics.*field.value, best = selection_.best_value;
  const bool first = selection_.best_epoch < 0;
  const bool better = record.images > 0 && (first || (field.lower_is_better ? value < best : value > best));
  if (better) {
    selection_.best_epoch = epoch;
    selection_.best_value = value;
    save_model(path("best.safetensors"), *model_, epoch + 1);
  }
  selection_.unjudged_epoch = -1;
  save_last();
  char text[160];
  std::snprintf(text, sizeof(text), "epoch %d: %s abs_rel %.4f  rmse %.3f  d1 %.4f%s", static_cast<int>(epoch + 1),
                split.c_str(), record.metrics.abs_rel, record.metrics.rmse, record.metrics.d1,
                better ? "  (best)" : "");
  log_line(text);
}

Evaluation TrainRun::validate(const std::string& split, const EvaluateExtras& extras) {
  model_->eval();
  const Dataset data(dataset_spec(recipe_, split));
  PredictOptions predicting;
  predicting.flip = recipe_.eval.flip;
  predicting.device = options_.device;
  predicting.dtype = options_.dtype;
  return evaluate_model(*model_, data, protocol_of(recipe_), predicting, extras);
}

void TrainRun::write_final_report() {
  Report report;
  report.title = recipe_.name;
  report.recipe = print_recipe(recipe_);
  report.log = read_run_log(path("metrics.jsonl"));
  const MemoryStats memory = memory_stats(options_.device);
  report.facts = {{"student", model_->name()},
                  {"parameters", std::to_string(model_->parameter_count())},
                  {"device", name_of(options_.device)},
                  {"precision", name_of(options_.dtype)},
                  {"training images", std::to_string(data_->size())},
                  {"steps", std::to_string(trainer_->position().updates)},
                  {"time in steps", format_duration(trainer_->seconds_in_steps())},
                  {"peak memory", format_bytes(static_cast<double>(memory.peak))}};
  const bool chosen = has_split(recipe_, recipe_.select.on);  // if not, the last model was kept, and is only shown
  const std::string split = report_split(recipe_);
  if (!split.empty()) {
    if (selection_.best_epoch >= 0) load_weights(*model_, path("best.safetensors"));
    const auto baselines = training_baselines(recipe_, protocol_of(recipe_), options_.out, true);
    const Evaluation evaluation = validate(split, {.panels = &report.panels,
                                                   .wanted_panels = static_cast<size_t>(recipe_.eval.report_panels),
                                                   .worst_by = recipe_.select.metric,
                                                   .baselines = baselines ? &*baselines : nullptr});
    report.final = evaluation.summary;
    report.images = evaluation.images;
    const std::string by = chosen ? concat_text(" (chosen by ", recipe_.select.metric, ")") : "";
    report.final_label =
        concat_text(chosen ? "best epoch " : "last epoch ", selection_.best_epoch + 1, by, ", ", split, " list");
    report.split = split;
    report.select_metric = recipe_.select.metric;
    report.baselines = evaluation.baselines;
    report.baseline_source = evaluation.baseline_source;
    report.protocol = describe(evaluation);
    report.reference_label = "ground truth";
    std::printf("%s", format_evaluation(evaluation).c_str());
  }
  write_report(path("report.html"), report);
  log_line("report: " + path("report.html"));
}

}  // namespace

std::unique_ptr<Objective> make_objective(DepthModel& model, const Recipe& recipe, const LabelNetworks& labels,
                                          bool dead_rows, std::optional<bool> fused_head) {
  const std::vector<ParameterGroup> groups = parameter_groups(recipe, model);
  if (distills(recipe)) return std::make_unique<DistillAnyDepth>(model, recipe.distill, groups, labels);
  TieKdOptions options;
  options.loss = recipe.loss;
  options.dead_rows = dead_rows;
  options.fused_head = fused_head;
  options.groups = groups;
  return std::make_unique<TieKd>(model, options);
}

void train(const Recipe& recipe, const TrainOptions& options) { TrainRun(recipe, options).run(); }

}  // namespace depthstill
