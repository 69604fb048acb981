#include "engine/train/trainer.h"

#include <algorithm>
#include <cmath>

#include "engine/train/loader_note.h"

namespace depthstill {
namespace {

constexpr const char* kHadTargets = "had_targets";  // entry of a checkpoint

}  // namespace

Trainer::Trainer(std::shared_ptr<const Dataset> data, Objective& objective, const TrainerOptions& options,
                 TrainObserver& observer)
    : data_(std::move(data)),
      objective_(objective),
      options_(options),
      observer_(observer),
      steps_per_epoch_(depthstill::steps_per_epoch(data_->size(), options.loading)),
      step_(objective, {.optimiser = options.optimiser,
                        .device = options.device,
                        .graph = options.graph,
                        .note = [this](const std::string& line) { observer_.note(line); }}) {
  for (const StateEntry& entry : objective_.trained().state()) {
    if (!entry.trainable && !entry.frozen) statistics_.push_back({entry.name, *entry.tensor, entry.layout});
  }
}

int64_t Trainer::total_updates() const { return steps_of_run(data_->size(), options_.loading, options_.max_steps); }

// The settings that must not change between a run and its continuation, because they decide what a step computes.
std::string Trainer::fingerprint() const {
  return concat_text("seed ", options_.loading.seed, ", batch ", options_.loading.batch_size, ", ", steps_per_epoch_,
                     " steps per epoch, ", total_updates(), " steps in all, ", name_of(options_.dtype));
}

void Trainer::save(const std::string& path, const Metadata& extra) {
  Metadata metadata = objective_.choices();
  metadata.insert(extra.begin(), extra.end());
  metadata[kHadTargets] = had_targets_ ? "1" : "0";
  save_run_state(path, objective_.trained(), step_.optimiser(), position_, fingerprint(), metadata);
  checkpoint_ = path;
}

Metadata Trainer::resume(const std::string& path, const Metadata& expected) {
  const LoadedRun run = load_run_state(path, objective_.trained(), step_.optimiser(), fingerprint(), expected);
  position_ = run.position;
  looked_until_ = position_.updates;
  const auto had_targets = run.metadata.find(kHadTargets);
  had_targets_ = had_targets == run.metadata.end() || had_targets->second == "1";
  checkpoint_ = path;
  objective_.restore(run.metadata);
  return run.metadata;
}

LoaderOptions Trainer::loading() const {
  LoaderOptions loading = options_.loading;
  loading.first_epoch = position_.epoch;
  loading.first_step = position_.step;
  loading.batches = total_updates() - position_.updates;
  return loading;
}

bool Trainer::run() {
  const int64_t total = total_updates();
  if (position_.updates >= total) return true;
  Loader loader(data_, loading());
  const bool packable = !data_->packed() && !options_.loading.regions;  // regions are cut of the stored photos
  LoaderNote loader_note(options_.loading.workers, !packable);
  BatchRing ring(options_.dtype, options_.device);
  while (position_.updates < total) {
    if (observer_.stop()) {
      look(nullptr, position_.updates > 0);
      return false;
    }
    const auto start = Clock::now();
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
    seconds_in_steps_ +=
        std::chrono::duration<double>(Clock::now() - start).count() - (seconds_waiting_ - waited_before);
    if (const auto note = loader_note.after_step(epoch, seconds_waiting_, seconds_in_steps_)) observer_.note(*note);
    observer_.after_step(position_.updates);
    if (at_save_point()) observer_.save_point();
    if (at_end()) {
      position_.epoch = epoch + 1;
      position_.step = 0;
      observer_.after_epoch(epoch);
    }
  }
  if (tally_.empty > 0) {
    observer_.note(concat_text("note: ", tally_.empty, " steps had no target pixel that counts"));
  }
  return true;
}

bool Trainer::at_end() const { return position_.step == steps_per_epoch_ || position_.updates == total_updates(); }

bool Trainer::at_save_point() const {
  return options_.save_every > 0 && position_.updates % options_.save_every == 0 && !at_end();
}

void Trainer::train_step(BatchRing& ring) {
  const Batch& next = ring.front();
  const bool full = static_cast<int>(next.items.size()) == options_.loading.batch_size;
  if (full && views_.empty()) views_ = empty_tensors(next, options_.dtype, options_.device);
  const bool usual = fits(next, views_);
  const BatchViews views = usual ? views_ : empty_tensors(next, options_.dtype, options_.device);
  const Batch batch = ring.pop(views);
  last_views_ = views;
  observer_.before_step(batch);
  const double lr = options_.schedule.at(position_.updates, total_updates());
  step_.optimiser().set_lr(lr);
  if (usual) {
    step_.run(views, batch.teacher);
  } else {
    step_.run_once(views, batch.teacher);
  }

  position_.epoch = batch.epoch;
  position_.step = batch.step + 1;
  ++position_.updates;
  images_seen_ += static_cast<int64_t>(batch.items.size());
  const bool log = position_.updates % options_.log_every == 0;
  // Whoever reads a result waits for the device: there, only before something is printed or saved.
  const bool end = at_end(), save = end || at_save_point();
  if (options_.device == Device::kCpu || log || save) look(&batch, save);
  if (log) log_step(batch, lr);
  check(!end || had_targets_ || tally_.empty == 0, "epoch ", batch.epoch + 1, ": expected a target pixel that counts ",
        "(finite, > 0 and within the model's range) in at least one of ", tally_.empty, " steps, found none");
}

std::string Trainer::steps_text(int64_t first, int64_t last) const {
  return first == last ? concat_text("step ", last, " (epoch ", position_.epoch + 1, ")")
                       : concat_text("steps ", first, " to ", last, " (epoch ", position_.epoch + 1, ")");
}

std::string Trainer::checkpoint_text() const {
  const std::string checkpoint =
      checkpoint_.empty() ? "; no checkpoint was written yet" : "; last good checkpoint: " + checkpoint_;
  if (position_.updates == 0) return checkpoint;
  return concat_text(checkpoint, "; the learning rate was ",
                     options_.schedule.at(position_.updates - 1, total_updates()));
}

// Looks at all steps since the last look, before anything of them is shown or saved. `batch` is that of the last one,
// if it is known. What waits for the device stands here and below.
void Trainer::look(const Batch* batch, bool saving) {
  const int64_t first = std::exchange(looked_until_, position_.updates) + 1, last = position_.updates;
  const std::string steps = steps_text(std::min(first, last), last);
  const std::string images = first == last && batch != nullptr ? "; images: " + names_of(*batch) : "";
  if (first <= last) {
    const double total = step_.losses().at(0).second;
    const AdamW::StepReport report = step_.optimiser().last_step();
    const bool finite = std::isfinite(total);
    check(finite && report.dropped == 0, steps, ": the ", finite ? "gradient" : "loss", " is not finite", images,
          checkpoint_text());
    if (report.broken) {
      const std::string tensor = first_non_finite(run_tensors(objective_.trained(), step_.optimiser()));
      fail(steps, ": the update is not finite", images, "; ", tensor, checkpoint_text());
    }
    look_at_targets(steps, images);
    observer_.looked(steps, batch);
  }
  if (options_.device == Device::kCpu || saving) look_at_state(steps, images);
  if (!saving || last_views_.empty()) return;
  check(objective_.predicts(last_views_), steps, ": with the updated weights the prediction for an image is not finite",
        images, checkpoint_text());
}

void Trainer::look_at_state(const std::string& steps, const std::string& images) {
  const std::string tensor = first_non_finite(statistics_);
  check(tensor.empty(), steps, ": the running statistics are not finite", images, "; ", tensor, checkpoint_text());
}

void Trainer::look_at_targets(const std::string& steps, const std::string& images) {
  constexpr int64_t kMostNotes = 5;
  const std::optional<TargetTally> now = objective_.targets();
  if (!now) return;
  const int64_t empty = now->empty - tally_.empty;
  tally_ = *now;
  had_targets_ = had_targets_ || now->pixels > 0;
  if (empty == 0 || ++target_notes_ > kMostNotes) return;
  observer_.note(concat_text("note: ", steps, ": ", images.empty() ? concat_text(empty, " without a") : "no",
                             " target pixel that counts", images,
                             target_notes_ == kMostNotes ? "; further ones are counted at the end" : ""));
}

void Trainer::log_step(const Batch& batch, double lr) {
  StepRecord record;
  record.step = position_.updates;
  record.epoch = batch.epoch;
  record.lr = lr;
  record.grad_norm = static_cast<double>(step_.optimiser().last_step().grad_norm);
  const auto now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - std::exchange(last_log_, now)).count();
  record.images_per_second =
      static_cast<double>(images_seen_ - std::exchange(images_at_last_log_, images_seen_)) / seconds;
  record.losses = step_.losses();
  record.figures = step_.figures();
  if (options_.loading.regions && options_.loading.regions->teachers.size() > 1) {
    record.figures.emplace_back("teacher", static_cast<double>(batch.teacher));
  }
  observer_.log(record);
}

}  // namespace depthstill
