// The loop of training: batches of a data set through the step of an objective, the schedule of the learning rate,
// interruption and resuming. Whoever watches decides what is shown, saved and judged.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/data/loader.h"
#include "engine/schedule.h"
#include "engine/train/batch_ring.h"
#include "engine/train/run_state.h"
#include "engine/train/step.h"

namespace depthstill {

struct TrainerOptions {
  LoaderOptions loading;  // the trainer sets where it begins
  Schedule schedule;
  AdamWOptions optimiser;
  int64_t max_steps = 0;   // 0: loading.epochs decide
  int64_t log_every = 1;   // steps
  int64_t save_every = 0;  // steps between the observer's save_point(); 0: none within an epoch
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;  // type of the activations
  bool graph = true;            // on CUDA, replay the step as a graph
};

// One line of a log: steps from 1, epochs from 0.
struct StepRecord {
  int64_t step = 0, epoch = 0;
  double lr = 0, grad_norm = 0, images_per_second = 0;
  std::vector<std::pair<std::string, double>> losses;  // "total" first, then its parts
  std::vector<std::pair<std::string, double>> figures = {};
};

// All functions may be left as they are. What a function throws ends the run.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual bool stop() { return false; }  // true ends the run before its next step; it may be saved and resumed
  virtual void note(const std::string& line) { static_cast<void>(line); }
  virtual void before_step(const Batch& batch) { static_cast<void>(batch); }
  // The device has done everything up to the end of `steps`, "step 3 (epoch 1)" or "steps 4 to 9 (epoch 1)"; `batch` is
  // that of the last one, null where it is not known. What it has left can be read without a wait, before it is shown
  // or saved.
  virtual void looked(const std::string& steps, const Batch* batch) {
    static_cast<void>(steps);
    static_cast<void>(batch);
  }
  virtual void log(const StepRecord& record) { static_cast<void>(record); }
  virtual void after_step(int64_t updates) { static_cast<void>(updates); }
  virtual void save_point() {}  // what is trained so far may be saved; the end of an epoch is after_epoch() alone
  virtual void after_epoch(int64_t epoch) { static_cast<void>(epoch); }  // epochs from 0; also one that max_steps cut
};

class Trainer {
 public:
  // The objective's module must be on the device. The objective and the observer must outlive the trainer. Throws Error
  // if the data set has no batch.
  Trainer(std::shared_ptr<const Dataset> data, Objective& objective, const TrainerOptions& options,
          TrainObserver& observer);

  // Trains to the end, or until the observer says stop: then it returns false. Throws Error where a loss, a gradient or
  // what an update leaves is not finite, naming the step and its images (or the steps since the last check), the
  // tensor, the last checkpoint and the learning rate; and at the end of the first epoch, or of the run, if no step met
  // a target pixel that counts. Single steps without one are notes. On CUDA all this is looked at where a step is
  // logged or saved.
  bool run();

  // `extra`: entries beside the trainer's own, such as what tells the network. What is saved is what run() has found
  // finite, and able to predict. resume() comes before run(), throws Error if the file contradicts `expected` or is of
  // another run, and returns all entries.
  void save(const std::string& path, const Metadata& extra);
  Metadata resume(const std::string& path, const Metadata& expected);

  const RunPosition& position() const { return position_; }
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  int64_t total_updates() const;
  double seconds_in_steps() const { return seconds_in_steps_; }
  double seconds_waiting() const { return seconds_waiting_; }  // time waiting for data

 private:
  using Clock = std::chrono::steady_clock;

  LoaderOptions loading() const;
  void train_step(BatchRing& ring);
  bool at_end() const;         // of an epoch, or of the run
  bool at_save_point() const;  // between them
  void look(const Batch* batch, bool saving);
  void look_at_state(const std::string& steps, const std::string& images);
  void look_at_targets(const std::string& steps, const std::string& images);
  std::string steps_text(int64_t first, int64_t last) const;
  std::string checkpoint_text() const;
  void log_step(const Batch& batch, double lr);
  std::string fingerprint() const;

  const std::shared_ptr<const Dataset> data_;
  Objective& objective_;
  const TrainerOptions options_;
  TrainObserver& observer_;
  const int64_t steps_per_epoch_;
  TrainStep step_;
  BatchViews views_;       // tensors that a step of full size reads: always the same memory
  BatchViews last_views_;  // those of the last step; none yet: empty
  RunPosition position_;
  std::vector<NamedTensor> statistics_;  // the module's state that no optimiser updates
  int64_t looked_until_ = 0;             // steps that were looked at
  TargetTally tally_;                    // what those steps had to learn from, since this process began
  int64_t target_notes_ = 0;             // notes on steps without target pixels
  bool had_targets_ = false;             // a target pixel counted, in this process or before
  std::string checkpoint_;               // path that was saved or resumed from last; empty: none
  int64_t images_seen_ = 0, images_at_last_log_ = 0;
  Clock::time_point last_log_ = Clock::now();
  double seconds_in_steps_ = 0, seconds_waiting_ = 0;
};

}  // namespace depthstill
