#include "tools/bench/profile.h"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "engine/data/batch_tensors.h"
#include "engine/data/loader.h"
#include "engine/random_data.h"
#include "engine/train/step.h"
#include "kernels/core/dry_run.h"
#include "kernels/core/tracing.h"
#include "models/model_table.h"
#include "tools/distill_recipe.h"
#include "tools/interrupt.h"
#include "tools/progress.h"
#include "tools/train_run.h"

namespace depthstill {
namespace {

using Clock = std::chrono::steady_clock;

// Tells whether nsys and ncu have something to capture on this device.
bool traced(Device device) { return device == Device::kCuda && built_with_cuda(); }

class ProfiledTraining {
 public:
  ProfiledTraining(const Recipe& recipe, const ProfileOptions& options);
  Profile run();
  StepEstimate estimate(const MachinePeak& peak);

 private:
  Shape map_shape() const;
  BatchViews batch_of(const std::function<Tensor(const Shape&)>& make) const;
  BatchViews random_batch() const;
  void open_data_set();
  Batch next_batch();
  Profile finish(const BatchViews& views);

  const Recipe& recipe_;
  const ProfileOptions& options_;
  std::unique_ptr<DepthModel> model_;
  std::unique_ptr<Objective> objective_;
  std::optional<TrainStep> step_;
  std::optional<Loader> loader_;
  std::optional<int64_t> online_teacher_;  // the first one
  Profile profile_;
};

ProfiledTraining::ProfiledTraining(const Recipe& recipe, const ProfileOptions& options)
    : recipe_(recipe), options_(options) {
  model_ = make_model(recipe.model.name, recipe.model.options);
  if (!cuda::dry_running()) model_->initialize(recipe.train.seed);
  model_->to(options.device);
  freeze_part(*model_, recipe);
  for (size_t i = 0; distills(recipe) && i < recipe.regions.teachers.size() && !online_teacher_; ++i) {
    if (is_online(recipe, i)) online_teacher_ = static_cast<int64_t>(i);
  }
  objective_ =
      make_objective(*model_, recipe, label_networks(recipe, options.device), options.dead_rows, options.fused_head);
  step_.emplace(
      *objective_,
      TrainStep::Options{
          .optimiser = recipe.optimiser, .device = options.device, .graph = false, .note = log_line, .after = {}});
}

Shape ProfiledTraining::map_shape() const {
  if (distills(recipe_)) return {recipe_.train.batch_size, recipe_.regions.size, recipe_.regions.size};
  const DataRecipe& data = recipe_.data;
  const ImageSize size = crop_of(augment_of(recipe_), {data.resize_width, data.resize_height});
  check(size.width > 0 && size.height > 0, "profile: expected a size in augment.crop_height and crop_width, or in ",
        "data.resize_height and resize_width, found none");
  return {recipe_.train.batch_size, size.height, size.width};
}

// What a batch has in training, of tensors that `make` makes: images have four dimensions, maps three.
BatchViews ProfiledTraining::batch_of(const std::function<Tensor(const Shape&)>& make) const {
  const Shape map = map_shape();
  const Tensor teacher = make(map);
  BatchTensors batch{make({map[0], map[1], map[2], 3}), teacher, teacher};
  if (!distills(recipe_)) return {batch};
  const RegionSpec spec = region_spec(recipe_);
  const int64_t patches = map[0] * spec.patches, P = spec.patch;
  const bool online = online_teacher_.has_value();
  if (online && P != map[1]) batch.region = make({map[0], P, P, 3});
  if (patches == 0) return {batch};
  std::vector<int32_t> windows;
  for (int64_t k = 0; k < patches; ++k) {
    windows.insert(windows.end(), {static_cast<int32_t>(k / spec.patches), 0, 0, spec.least});
  }
  batch.patches = make({patches, P, P});
  if (online) batch.patch_images = make({patches, P, P, 3});
  batch.windows = tensor<int32_t>({patches, 4}, windows, options_.device);
  return {batch};
}

BatchViews ProfiledTraining::random_batch() const {
  return batch_of([&](const Shape& shape) {
    return shape.rank() == 4 ? random_values(shape, options_.dtype, options_.device)
                             : random_teacher(shape, recipe_.model.options.d_max, options_.device);
  });
}

void ProfiledTraining::open_data_set() {
  LoaderOptions loading = loader_options(recipe_);
  loading.drop_last = true;
  loading.epochs = options_.last_step;  // no epoch is shorter than a step
  loading.cache_bytes = 0;
  const auto data = std::make_shared<Dataset>(dataset_spec(recipe_, "train"));
  loading.regions = region_loading(recipe_, *data);
  loader_.emplace(data, loading);
}

Batch ProfiledTraining::next_batch() {
  std::optional<Batch> batch = loader_->next();
  check(batch.has_value(), "profile: the data set has fewer images than a batch");
  return std::move(*batch);
}

Profile ProfiledTraining::finish(const BatchViews& views) {
  profile_.batch = recipe_.train.batch_size;
  profile_.height = views[0].image.size(1);
  profile_.width = views[0].image.size(2);
  const Metadata choices = objective_->choices();
  profile_.fused_head = choices.contains("fused_head") && choices.at("fused_head") == "1";
  return std::move(profile_);
}

Profile ProfiledTraining::run() {
  check(options_.first_step >= 1 && options_.last_step >= options_.first_step,
        "profile: expected steps A:B with 1 <= A <= B, got ", options_.first_step, ":", options_.last_step);
  BatchViews views;
  if (options_.random_data) {
    views = random_batch();
  } else {
    open_data_set();
  }
  profile_.peak = measure_peak(options_.device, options_.dtype);
  std::optional<Profiler> profiler;
  double waited_before = 0;
  for (int64_t i = 1; i <= options_.last_step; ++i) {
    throw_if_interrupted();
    const Batch batch = loader_ ? next_batch() : Batch{};
    if (i == options_.first_step) {
      if (loader_) waited_before = loader_->wait_seconds();
      synchronize(options_.device);
      profiler.emplace(options_.device);
      if (traced(options_.device)) cuda::profiler_start();
    }
    const auto start = Clock::now();
    if (loader_) views = to_tensors(batch, options_.dtype, options_.device);
    step_->run_once(views, loader_ ? batch.teacher : online_teacher_.value_or(0));
    synchronize(options_.device);
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    if (profiler) profile_.table.add_step(profiler->take(), ms);
  }
  if (traced(options_.device)) cuda::profiler_stop();
  if (loader_) {
    profile_.decode_ms = 1e3 * loader_->decode_seconds();
    profile_.waited_ms = 1e3 * (loader_->wait_seconds() - waited_before) /
                         static_cast<double>(options_.last_step + 1 - options_.first_step);
  }
  return finish(views);
}

// The first step makes what is made once; the second one counts.
StepEstimate ProfiledTraining::estimate(const MachinePeak& peak) {
  const BatchViews views = batch_of([&](const Shape& shape) {
    return empty(shape, shape.rank() == 4 ? options_.dtype : DType::kFloat, options_.device);
  });
  const int64_t teacher = online_teacher_.value_or(0);
  step_->run(views, teacher);
  Profiler profiler(options_.device);
  cuda::take_dry_run();
  step_->run(views, teacher);
  const cuda::DryRun record = cuda::take_dry_run();
  profile_.table.add_step(profiler.take(), 0.0);
  profile_.peak = peak;

  StepEstimate estimate;
  estimate.kernels = static_cast<int64_t>(record.launches.size());
  estimate.copies = record.copies_on_device + record.zeros;
  estimate.step_bytes = step_->plan()->bytes;
  for (const Tensor& parameter : model_->parameter_tensors()) estimate.parameter_bytes += parameter.bytes();
  estimate.labels = objective_->label_memory();
  const AdamW& optimiser = step_->optimiser();
  for (const auto* moments : {&optimiser.first_moments(), &optimiser.second_moments()}) {
    for (const Tensor& moment : *moments) estimate.optimiser_bytes += moment.bytes();
  }
  estimate.profile = finish(views);
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
