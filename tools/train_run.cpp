#include "tools/train_run.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/allocator.h"
#include "engine/captured_step.h"
#include "engine/data/batch_tensors.h"
#include "engine/data/loader.h"
#include "engine/io/atomic_file.h"
#include "engine/ops/dpm_head_way.h"
#include "engine/optim.h"
#include "engine/train/batch_ring.h"
#include "engine/train/loader_note.h"
#include "kernels/parallel.h"
#include "models/imagenet.h"
#include "models/model_file.h"
#include "models/predictor.h"
#include "tools/interrupt.h"
#include "tools/progress.h"
#include "tools/report.h"
#include "tools/run_log.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kMostLosses = 8;  // the total and its parts

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// metrics.jsonl, appended line by line.
class MetricsFile {
 public:
  MetricsFile(std::string path, bool append) : path_(std::move(path)) {
    file_.reset(std::fopen(path_.c_str(), append ? "a" : "w"));
    check(file_ != nullptr, path_, ": cannot be written");
  }
  void write(const std::string& line) {
    const bool ok =
        std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size() && std::fflush(file_.get()) == 0;
    check(ok, path_, ": cannot be written, is the disk full?");
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

class Trainer {
 public:
  Trainer(const Recipe& recipe, const TrainOptions& options);
  void run();

 private:
  void run_steps();
  void initialise();
  void recalibrate();
  void check_validation() const;
  Loader make_loader() const;
  void train_step(BatchRing& ring);
  void prepare_steps(const Batch& first);
  void compute(const BatchTensors& batch);
  void check_finite(const Batch* batch);
  void log_step(const Batch& batch, double lr);
  void finish_epoch(int64_t epoch);
  void judge_epoch();
  Evaluation validate(const std::string& split, std::vector<ReportPanel>* panels);
  void save_last();
  void write_final_report();
  std::string path(const std::string& name) const { return (fs::path(options_.out) / name).string(); }
  std::string fingerprint() const;
  int64_t total_updates() const;

  Recipe recipe_;
  TrainOptions options_;
  std::shared_ptr<const Dataset> data_;
  std::optional<CapturedStep> step_;  // outlives the gradients that a failed step may leave in its memory
  std::unique_ptr<DepthModel> student_;
  std::optional<AdamW> optimiser_;
  BatchTensors batch_;                   // what a step of full size reads: always the same memory
  std::vector<std::string> loss_names_;  // "total", then the parts
  Tensor losses_;                        // of the last step, in this order
  int64_t finite_until_ = 0;             // steps known to have been finite
  std::optional<MetricsFile> metrics_;
  RunState state_;
  int64_t steps_per_epoch_ = 0, images_seen_ = 0;
  Clock::time_point start_ = Clock::now(), last_log_ = Clock::now();
  int64_t images_at_last_log_ = 0;
  double seconds_training_ = 0, seconds_waiting_ = 0;
  std::string note_;  // behind the progress bar
};

Trainer::Trainer(const Recipe& recipe, const TrainOptions& options) : recipe_(recipe), options_(options) {
  data_ = std::make_shared<Dataset>(dataset_spec(recipe_, "train"));
  if (recipe_.select.on == "test") {
    log_line("note: the kept model is chosen on the test list, as the published runs did; its test figures are biased");
  }
  steps_per_epoch_ = make_loader().steps_per_epoch();
  const int top_rows = recipe_.loss.top_rows, rows = recipe_.augment.crop.height;
  check(!recipe_.augment_on || top_rows < rows, "loss.top_rows: expected fewer than the ", rows,
        " rows of a training crop, found ", top_rows);

  check_validation();
  make_folder(options_.out);
  const bool has_run = fs::exists(path("last.safetensors"));
  check(options_.resume || !has_run, options_.out,
        ": holds a run already; give --resume to go on with it, or another --out");
  check(!options_.resume || has_run, options_.out, ": expected last.safetensors to resume from, found none");
  initialise();
}

// By its first image, for what would otherwise fail after the first epoch.
void Trainer::check_validation() const {
  if (!has_split(recipe_, recipe_.select.on)) return;
  const Dataset data(dataset_spec(recipe_, recipe_.select.on));
  Sample sample = data.start(0);
  data.load_image(sample);
  check_frame(protocol_of(recipe_).frame, sample);
}

// The settings that must not change between a run and its continuation, because they decide what a step computes.
std::string Trainer::fingerprint() const {
  return concat_text("seed ", recipe_.train.seed, ", batch ", recipe_.train.batch_size, ", ", steps_per_epoch_,
                     " steps per epoch, ", total_updates(), " steps in all, ", name_of(options_.dtype));
}

int64_t Trainer::total_updates() const {
  const int64_t all = steps_per_epoch_ * recipe_.train.epochs;
  return recipe_.train.max_steps > 0 ? std::min(all, recipe_.train.max_steps) : all;
}

void Trainer::initialise() {
  student_ = make_model(recipe_.model.name, recipe_.model.options);
  bool folded = false;
  if (!options_.resume) {
    student_->initialize(recipe_.train.seed);
    if (!recipe_.model.weights.empty()) {
      const InitialWeights initial = load_initial(*student_, recipe_.model.weights);
      folded = initial.folded;
      log_line(initial.text);
    }
  }
  student_->to(options_.device);
  if (folded) recalibrate();

  std::vector<Tensor> parameters;
  for (const StateEntry& entry : student_->parameters()) parameters.push_back(*entry.tensor);
  optimiser_.emplace(std::move(parameters), recipe_.optimiser);
  if (options_.resume) {
    state_ = load_run_state(path("last.safetensors"), *student_, *optimiser_, fingerprint());
    log_line(concat_text("resuming at epoch ", state_.epoch + 1, ", step ", state_.step));
  }
  state_.fingerprint = fingerprint();
  finite_until_ = state_.updates;
  losses_ = zeros({kMostLosses}, DType::kFloat, options_.device);
  write_file(path("recipe.toml"), print_recipe(recipe_));
  metrics_.emplace(path("metrics.jsonl"), options_.resume);
}

// Statistics of the training images for an encoder that came without any.
void Trainer::recalibrate() {
  LoaderOptions loading;
  loading.batch_size = recipe_.train.batch_size;
  loading.workers = recipe_.data.workers;
  loading.seed = recipe_.train.seed;
  loading.drop_last = false;
  if (recipe_.augment_on) {
    loading.augment = recipe_.augment;
    loading.augment->rotate_probability = loading.augment->colour_probability = 0;
  }
  Loader loader(data_, loading);
  std::vector<Tensor> images;
  constexpr int64_t kImages = 32;
  for (int64_t count = 0; count < kImages;) {
    const auto batch = loader.next();
    if (!batch) break;
    images.push_back(to_tensors(*batch, DType::kFloat, options_.device).image);
    count += static_cast<int64_t>(batch->items.size());
  }
  recalibrate_batch_norm(*student_->imagenet_encoder(), images);
}

Loader Trainer::make_loader() const {
  LoaderOptions loading;
  loading.batch_size = recipe_.train.batch_size;
  loading.workers = recipe_.data.workers;
  loading.drop_last = recipe_.train.drop_last;
  loading.seed = recipe_.train.seed;
  if (recipe_.augment_on) loading.augment = recipe_.augment;
  loading.first_epoch = state_.epoch;
  loading.first_step = state_.step;
  loading.epochs = recipe_.train.epochs;
  loading.cache_bytes = static_cast<size_t>(recipe_.data.cache_mib) << 20;
  return Loader(data_, loading);
}

void Trainer::run() {
  try {
    run_steps();
    write_final_report();
  } catch (const Interrupted&) {
    log_line(concat_text("interrupted: everything up to step ", state_.updates, " is in ", path("last.safetensors"),
                         "; go on with --resume"));
    throw;
  }
}

void Trainer::run_steps() {
  const int64_t total = total_updates();
  log_line(concat_text(student_->name(), " with ", student_->parameter_count(), " parameters on ", options_.device,
                       ", ", options_.dtype, ", ", num_threads(), " threads; ", data_->size(), " images, ",
                       steps_per_epoch_, " steps an epoch, ", total, " steps"));
  if (state_.unjudged_epoch >= 0) judge_epoch();
  if (state_.updates >= total) return;
  Progress progress("train", "step", total, state_.updates);
  Loader loader = make_loader();
  LoaderNote loader_note(recipe_.data.workers, data_->packed());
  BatchRing ring(options_.dtype, options_.device);
  while (state_.updates < total) {
    if (interrupted()) {
      check_finite(nullptr);
      save_last();
      throw Interrupted{};
    }
    const auto step_start = Clock::now();
    const double waited_before = loader.wait_seconds();
    while (!ring.full()) {
      auto batch = loader.next();
      if (!batch) break;
      ring.push(std::move(*batch));
    }
    if (ring.empty()) break;
    const int64_t epoch = ring.front().epoch;
    train_step(ring);
    seconds_waiting_ = loader.wait_seconds();
    seconds_training_ += seconds_since(step_start) - (seconds_waiting_ - waited_before);
    if (const auto note = loader_note.after_step(epoch, seconds_waiting_, seconds_training_)) log_line(*note);
    progress.update(state_.updates, note_);
    if (options_.on_step) options_.on_step(state_.updates);
    if (state_.step == steps_per_epoch_ || state_.updates == total) {
      state_.epoch = epoch + 1;
      state_.step = 0;
      finish_epoch(epoch);
    }
  }
  progress.finish();
  const MemoryStats memory = memory_stats(options_.device);
  log_line(concat_text("trained ", state_.updates, " steps, peak memory ",
                       format_bytes(static_cast<double>(memory.peak)), "; waited ", format_duration(seconds_waiting_),
                       " for data"));
}

// What waits for the size of the images.
void Trainer::prepare_steps(const Batch& first) {
  const ImageSize size = first.items[0].params.crop;
  const int64_t first_row = options_.dead_rows ? recipe_.loss.top_rows : 0;
  const HeadProblem problem{options_.device, options_.dtype, recipe_.train.batch_size, size.height, size.width,
                            first_row,       recipe_.loss};
  const HeadChoice choice =
      choose_head(*student_, problem, options_.fused_head ? options_.fused_head : state_.fused_head);
  if (!choice.note.empty()) log_line(choice.note);
  state_.fused_head = choice.fused;

  std::vector<Tensor> counters;
  for (const StateEntry& entry : student_->state()) {
    if (entry.tensor->dtype() == DType::kInt64) counters.push_back(*entry.tensor);
  }
  step_.emplace(options_.device, options_.graph, std::move(counters), log_line);
}

void Trainer::train_step(BatchRing& ring) {
  const Batch batch = ring.front();
  if (!step_) prepare_steps(batch);
  const bool full = static_cast<int>(batch.items.size()) == recipe_.train.batch_size;
  if (full && !batch_.image.defined()) batch_ = empty_tensors(batch, options_.dtype, options_.device);
  const bool usual = fits(batch, batch_);
  const BatchTensors tensors = usual ? batch_ : empty_tensors(batch, options_.dtype, options_.device);
  ring.pop(tensors);
  const double lr = recipe_.schedule.at(state_.updates, total_updates());
  optimiser_->set_lr(lr);
  student_->train();
  if (usual) {
    step_->run([&] { compute(batch_); });
  } else {
    compute(tensors);
  }

  state_.epoch = batch.epoch;
  state_.step = batch.step + 1;
  ++state_.updates;
  images_seen_ += static_cast<int64_t>(batch.items.size());
  const bool log = state_.updates % recipe_.train.log_every == 0;
  // Whoever reads a result waits for the device: there, only before something is printed or saved.
  const bool save = state_.step == steps_per_epoch_ || state_.updates == total_updates();
  if (options_.device == Device::kCpu || log || save) check_finite(&batch);
  if (log) log_step(batch, lr);
}

// A step on the device, from the batch to the updated parameters. On CUDA this becomes a graph: nothing in it waits.
void Trainer::compute(const BatchTensors& batch) {
  const int64_t top_rows = recipe_.loss.top_rows;
  student_->clear_grads();
  const int64_t first_row = options_.dead_rows ? top_rows : 0;
  const LossResult loss = [&] {
    const Prediction output = state_.fused_head.value() ? student_->forward_before_head(batch.image, first_row)
                                                        : student_->forward(batch.image, first_row);
    return distillation_loss(output, batch.teacher, batch.truth, recipe_.loss, student_->bins());
  }();
  backward(loss.total);
  optimiser_->step();
  student_->clear_grads();

  loss_names_.clear();
  const auto keep = [&](const std::string& name, const Tensor& value) {
    float* to = losses_.data<float>() + loss_names_.size();
    copy_bytes(to, losses_.device(), value.raw(), value.device(), sizeof(float));
    loss_names_.push_back(name);
  };
  keep("total", loss.total);
  for (const auto& [name, value] : loss.parts) keep(name, value);
}

// Of the steps since the last check. `batch` is that of the last one, if it is known.
void Trainer::check_finite(const Batch* batch) {
  const int64_t first = std::exchange(finite_until_, state_.updates), last = state_.updates - 1;
  if (first > last) return;
  const float total = to_vector<float>(losses_)[0];
  const AdamW::StepReport report = optimiser_->last_step();
  if (std::isfinite(total) && report.dropped == 0) return;
  const bool saved = fs::exists(path("last.safetensors")), one = first == last;
  fail(one ? "step " : "steps ", first, one ? "" : concat_text(" to ", last), " (epoch ", state_.epoch + 1, "): the ",
       std::isfinite(total) ? "gradient" : "loss", " is not finite",
       one && batch != nullptr ? "; images: " + names_of(*batch) : "", "; ",
       saved ? "last good checkpoint: " + path("last.safetensors") : "no checkpoint was written yet");
}

void Trainer::log_step(const Batch& batch, double lr) {
  StepRecord record;
  record.step = state_.updates;
  record.epoch = batch.epoch;
  record.lr = lr;
  record.grad_norm = static_cast<double>(optimiser_->last_step().grad_norm);
  record.images_per_second = static_cast<double>(images_seen_ - images_at_last_log_) / seconds_since(last_log_);
  last_log_ = Clock::now();
  images_at_last_log_ = images_seen_;
  const std::vector<float> losses = to_vector<float>(losses_);
  for (size_t i = 0; i < loss_names_.size(); ++i) {
    record.losses.emplace_back(loss_names_[i], static_cast<double>(losses[i]));
  }
  metrics_->write(to_json_line(record));

  char text[64];
  note_ = "epoch " + std::to_string(batch.epoch + 1);
  for (const auto& [name, value] : record.losses) {
    std::snprintf(text, sizeof(text), "  %s %.4g", name.c_str(), value);
    note_ += text;
  }
  std::snprintf(text, sizeof(text), "  %.2f img/s  lr %.2e  ", record.images_per_second, lr);
  note_ += text + format_bytes(static_cast<double>(memory_stats(options_.device).peak));
}

void Trainer::save_last() { save_run_state(path("last.safetensors"), *student_, *optimiser_, state_); }

// A checkpoint, then the figures that decide whether it is the best so far.
void Trainer::finish_epoch(int64_t epoch) {
  const auto name = [](int64_t number) {
    char text[32];
    std::snprintf(text, sizeof(text), "epoch_%03d.safetensors", static_cast<int>(number));
    return std::string(text);
  };
  const std::string& split = recipe_.select.on;
  const bool chosen = has_split(recipe_, split), last = state_.updates == total_updates();
  if (chosen && (last || (epoch + 1) % recipe_.eval.every == 0)) state_.unjudged_epoch = epoch;
  if (!chosen) {  // nothing to choose by: the last model is kept
    state_.best_epoch = epoch;
    if (last) save_model(path("best.safetensors"), *student_, epoch + 1);
  }
  save_last();
  if (recipe_.train.checkpoint_keep > 0) {
    save_model(path(name(epoch + 1)), *student_, epoch + 1);
    fs::remove(path(name(epoch + 1 - recipe_.train.checkpoint_keep)));
  }
  if (state_.unjudged_epoch >= 0) judge_epoch();
}

// Validates the epoch that was trained last and keeps it if it is the best. Interrupted here, a resumed run does it
// first.
void Trainer::judge_epoch() {
  const int64_t epoch = state_.unjudged_epoch;
  const std::string& split = recipe_.select.on;
  const Evaluation evaluation = validate(split, nullptr);
  EvalRecord record;
  record.step = state_.updates;
  record.epoch = epoch;
  record.split = split;
  record.images = evaluation.summary.images;
  record.metrics = evaluation.summary.mean;
  metrics_->write(to_json_line(record));
  const MetricField& field = metric_field(recipe_.select.metric);
  const double value = record.metrics.*field.value;
  const bool first = state_.best_epoch < 0;
  const bool better =
      record.images > 0 && (first || (field.lower_is_better ? value < state_.best_value : value > state_.best_value));
  if (better) {
    state_.best_epoch = epoch;
    state_.best_value = value;
    save_model(path("best.safetensors"), *student_, epoch + 1);
  }
  state_.unjudged_epoch = -1;
  save_last();
  char text[160];
  std::snprintf(text, sizeof(text), "epoch %d: %s abs_rel %.4f  rmse %.3f  d1 %.4f%s", static_cast<int>(epoch + 1),
                split.c_str(), record.metrics.abs_rel, record.metrics.rmse, record.metrics.d1,
                better ? "  (best)" : "");
  log_line(text);
}

Evaluation Trainer::validate(const std::string& split, std::vector<ReportPanel>* panels) {
  student_->eval();
  const Dataset data(dataset_spec(recipe_, split));
  const size_t wanted = panels == nullptr ? 0 : static_cast<size_t>(recipe_.eval.report_panels);
  PredictOptions predicting = predict_options(recipe_);
  predicting.device = options_.device;
  predicting.dtype = options_.dtype;
  return evaluate_student(*student_, data, protocol_of(recipe_), predicting, wanted, panels);
}

void Trainer::write_final_report() {
  Report report;
  report.title = recipe_.name;
  report.recipe = print_recipe(recipe_);
  report.log = read_run_log(path("metrics.jsonl"));
  const MemoryStats memory = memory_stats(options_.device);
  report.facts = {{"student", student_->name()},
                  {"parameters", std::to_string(student_->parameter_count())},
                  {"device", name_of(options_.device)},
                  {"precision", name_of(options_.dtype)},
                  {"training images", std::to_string(data_->size())},
                  {"steps", std::to_string(state_.updates)},
                  {"time in steps", format_duration(seconds_training_)},
                  {"peak memory", format_bytes(static_cast<double>(memory.peak))}};
  const bool chosen = has_split(recipe_, recipe_.select.on);  // else the last model was kept, and is only shown
  const std::string split = chosen ? recipe_.select.on : "test";
  if (has_split(recipe_, split)) {
    if (state_.best_epoch >= 0) load_weights(*student_, path("best.safetensors"));
    const Evaluation evaluation = validate(split, &report.panels);
    report.final = evaluation.summary;
    report.final_label =
        concat_text(chosen ? "best epoch " : "last epoch ", state_.best_epoch + 1, ", ", split, " list");
    report.protocol = describe(evaluation);
    report.reference_label = "ground truth";
    std::printf("%s", format_evaluation(evaluation).c_str());
  }
  write_report(path("report.html"), report);
  log_line("report: " + path("report.html"));
}

}  // namespace

void train(const Recipe& recipe, const TrainOptions& options) { Trainer(recipe, options).run(); }

}  // namespace depthstill
