#include "tools/profile.h"

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "engine/data/batch_tensors.h"
#include "engine/data/loader.h"
#include "engine/random_data.h"
#include "engine/step_arena.h"
#include "kernels/dry_run.h"
#include "kernels/tracing.h"
#include "tools/interrupt.h"

namespace depthstill {
namespace {

using Clock = std::chrono::steady_clock;

// Whether nsys and ncu have something to capture on this device.
bool traced(Device device) { return device == Device::kCuda && built_with_cuda(); }

class ProfiledTraining {
 public:
  ProfiledTraining(const Recipe& recipe, const ProfileOptions& options);
  Profile run();
  StepEstimate estimate(const MachinePeak& peak);

 private:
  Shape map_shape() const { return {profile_.batch, recipe_.augment.crop.height, recipe_.augment.crop.width}; }
  void make_random_data();
  void open_data_set();
  std::optional<Batch> next_batch();
  void prepare(ImageSize size);
  void step(const std::optional<Batch>& batch);
  BatchTensors tensors_of(const std::optional<Batch>& batch);

  const Recipe& recipe_;
  const ProfileOptions& options_;
  std::unique_ptr<DepthModel> student_;
  std::optional<AdamW> optimiser_;
  std::optional<Loader> loader_;
  BatchTensors random_;
  int64_t first_row_ = 0;  // that is computed
  Profile profile_;
};

ProfiledTraining::ProfiledTraining(const Recipe& recipe, const ProfileOptions& options)
    : recipe_(recipe), options_(options) {
  student_ = make_model(recipe.model.name, recipe.model.options);
  if (!cuda::dry_running()) student_->initialize(recipe.train.seed);
  student_->to(options.device);
  optimiser_.emplace(student_->parameter_tensors(), recipe.optimiser);
  profile_.batch = recipe.train.batch_size;
  if (options.dead_rows) first_row_ = recipe.loss.top_rows;
}

void ProfiledTraining::make_random_data() {
  const Shape map = map_shape();
  random_.image = random_values({map[0], map[1], map[2], 3}, options_.dtype, options_.device);
  random_.teacher = random_teacher(map, recipe_.model.options.d_max, options_.device);
  random_.truth = random_.teacher;
}

void ProfiledTraining::open_data_set() {
  LoaderOptions loading;
  loading.batch_size = recipe_.train.batch_size;
  loading.workers = recipe_.data.workers;
  loading.seed = recipe_.train.seed;
  loading.epochs = options_.last_step;  // no epoch is shorter than a step
  if (recipe_.augment_on) loading.augment = recipe_.augment;
  loader_.emplace(std::make_shared<Dataset>(dataset_spec(recipe_, "train")), loading);
}

std::optional<Batch> ProfiledTraining::next_batch() {
  if (!loader_) return std::nullopt;
  std::optional<Batch> batch = loader_->next();
  check(batch.has_value(), "profile: the data set has fewer images than a batch");
  return batch;
}

BatchTensors ProfiledTraining::tensors_of(const std::optional<Batch>& batch) {
  return batch ? to_tensors(*batch, options_.dtype, options_.device) : random_;
}

void ProfiledTraining::step(const std::optional<Batch>& batch) {
  const BatchTensors tensors = tensors_of(batch);
  profile_.height = tensors.image.size(1);
  profile_.width = tensors.image.size(2);
  student_->clear_grads();
  Prediction output{Tensor()};
  {
    const ProfileRange range("fwd");
    output = profile_.head.fused ? student_->forward_before_head(tensors.image, first_row_)
                                 : student_->forward(tensors.image, first_row_);
  }
  LossResult loss;
  {
    const ProfileRange range("loss");
    loss = distillation_loss(output, tensors.teacher, tensors.truth, recipe_.loss, student_->bins());
  }
  output = Tensor();
  {
    const ProfileRange range("bwd");
    backward(loss.total);
  }
  const ProfileRange range("update");
  optimiser_->step();
}

// What waits for the size of the images.
void ProfiledTraining::prepare(ImageSize size) {
  const HeadProblem problem{options_.device, options_.dtype, profile_.batch, size.height,
                            size.width,      first_row_,     recipe_.loss};
  profile_.head = choose_head(*student_, problem, options_.fused_head);
}

Profile ProfiledTraining::run() {
  check(options_.first_step >= 1 && options_.last_step >= options_.first_step,
        "profile: expected steps A:B with 1 <= A <= B, got ", options_.first_step, ":", options_.last_step);
  if (options_.random_data) {
    make_random_data();
  } else {
    open_data_set();
  }
  profile_.peak = measure_peak(options_.device, options_.dtype);
  std::optional<Profiler> profiler;
  for (int64_t i = 1; i <= options_.last_step; ++i) {
    throw_if_interrupted();
    const std::optional<Batch> batch = next_batch();
    if (i == 1) prepare(batch ? batch->items[0].params.crop : recipe_.augment.crop);
    if (i == options_.first_step) {
      synchronize(options_.device);
      profiler.emplace(options_.device);
      if (traced(options_.device)) cuda::profiler_start();
    }
    const auto start = Clock::now();
    step(batch);
    synchronize(options_.device);
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    if (profiler) profile_.table.add_step(profiler->take(), ms);
  }
  if (traced(options_.device)) cuda::profiler_stop();
  return std::move(profile_);
}

// The first step makes what is made once; the second one counts.
StepEstimate ProfiledTraining::estimate(const MachinePeak& peak) {
  const Shape map = map_shape();
  random_.image = empty({map[0], map[1], map[2], 3}, options_.dtype, options_.device);
  random_.teacher = random_.truth = empty(map, DType::kFloat, options_.device);
  prepare(recipe_.augment.crop);
  const auto whole_step = [this] {
    step(std::nullopt);
    student_->clear_grads();
  };
  whole_step();
  StepArena arena(options_.device);
  Profiler profiler(options_.device);
  cuda::take_dry_run();
  arena.run(whole_step);
  const cuda::DryRun record = cuda::take_dry_run();
  profile_.table.add_step(profiler.take(), 0.0);
  profile_.peak = peak;

  StepEstimate estimate;
  estimate.kernels = static_cast<int64_t>(record.launches.size());
  estimate.copies = record.copies_on_device + record.zeros;
  estimate.step_bytes = arena.plan()->bytes;
  for (const Tensor& parameter : student_->parameter_tensors()) estimate.parameter_bytes += parameter.bytes();
  for (const auto* moments : {&optimiser_->first_moments(), &optimiser_->second_moments()}) {
    for (const Tensor& moment : *moments) estimate.optimiser_bytes += moment.bytes();
  }
  estimate.profile = std::move(profile_);
  return estimate;
}

}  // namespace

Profile profile_training(const Recipe& recipe, const ProfileOptions& options) {
  return ProfiledTraining(recipe, options).run();
}

StepEstimate estimate_training(const Recipe& recipe, const ProfileOptions& options, const MachinePeak& peak) {
  check(cuda::dry_running(), "profile: expected a dry run for an estimate");
  ProfileOptions on_gpu = options;
  on_gpu.device = Device::kCuda;
  return ProfiledTraining(recipe, on_gpu).estimate(peak);
}

}  // namespace depthstill
