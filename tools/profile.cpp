#include "tools/profile.h"

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "engine/data/loader.h"
#include "kernels/tracing.h"
#include "tools/batch_tensors.h"
#include "tools/interrupt.h"
#include "tools/random_data.h"

namespace depthstill {
namespace {

using Clock = std::chrono::steady_clock;

// Whether nsys and ncu have something to capture on this device.
bool traced(Device device) { return device == Device::kCuda && built_with_cuda(); }

class ProfiledTraining {
 public:
  ProfiledTraining(const Recipe& recipe, const ProfileOptions& options);
  Profile run();

 private:
  std::optional<Batch> next_batch();
  void step(const std::optional<Batch>& batch);
  BatchTensors tensors_of(const std::optional<Batch>& batch);

  const Recipe& recipe_;
  const ProfileOptions& options_;
  std::unique_ptr<Student> student_;
  std::optional<AdamW> optimiser_;
  std::optional<Loader> loader_;
  BatchTensors random_;
  Profile profile_;
};

ProfiledTraining::ProfiledTraining(const Recipe& recipe, const ProfileOptions& options)
    : recipe_(recipe), options_(options) {
  check(options.first_step >= 1 && options.last_step >= options.first_step,
        "profile: expected steps A:B with 1 <= A <= B, got ", options.first_step, ":", options.last_step);
  student_ = make_student(recipe.model.name, recipe.model.options);
  student_->initialize(recipe.train.seed);
  student_->to(options.device);
  optimiser_.emplace(student_->parameter_tensors(), recipe.optimiser);
  profile_.batch = recipe.train.batch_size;
  if (options.random_data) {
    const int64_t height = recipe.augment.crop.height, width = recipe.augment.crop.width;
    random_.image = random_values({profile_.batch, height, width, 3}, options.dtype, options.device);
    random_.teacher = random_teacher({profile_.batch, height, width}, recipe.model.options.d_max, options.device);
    random_.truth = random_.teacher;
    return;
  }
  LoaderOptions loading;
  loading.batch_size = recipe.train.batch_size;
  loading.workers = recipe.data.workers;
  loading.seed = recipe.train.seed;
  loading.epochs = options.last_step;  // no epoch is shorter than a step
  if (recipe.augment_on) loading.augment = recipe.augment;
  loader_.emplace(std::make_shared<Dataset>(dataset_spec(recipe, "train")), loading);
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
    const int64_t first_row = options_.dead_rows ? recipe_.loss.top_rows : 0;
    output = options_.fused_head ? student_->forward_before_head(tensors.image, first_row)
                                 : student_->forward(tensors.image, first_row);
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

Profile ProfiledTraining::run() {
  profile_.peak = measure_peak(options_.device, options_.dtype);
  std::optional<Profiler> profiler;
  for (int64_t i = 1; i <= options_.last_step; ++i) {
    throw_if_interrupted();
    const std::optional<Batch> batch = next_batch();
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

}  // namespace

Profile profile_training(const Recipe& recipe, const ProfileOptions& options) {
  return ProfiledTraining(recipe, options).run();
}

}  // namespace depthstill
