#include "engine/train/step.h"

#include "engine/allocator.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr int64_t kMostKept = 16;  // the total, its parts and figures

std::vector<float> lr_factors(Objective& objective) {
  const std::vector<ParameterGroup> groups = objective.groups();
  std::vector<float> factors;
  for (const StateEntry& entry : objective.trained().parameters()) {
    float factor = 1.0f;
    for (const ParameterGroup& group : groups) {
      if (!entry.name.starts_with(group.prefix)) continue;
      factor = group.lr_factor;
      break;
    }
    factors.push_back(factor);
  }
  return factors;
}

}  // namespace

std::vector<Tensor> TrainStep::counters(const Module& module) {
  std::vector<Tensor> found;
  for (const StateEntry& entry : module.state()) {
    if (entry.tensor->dtype() == DType::kInt64) found.push_back(*entry.tensor);
  }
  return found;
}

TrainStep::TrainStep(Objective& objective, Options options)
    : objective_(objective),
      options_(std::move(options)),
      optimiser_(objective.trained().parameter_tensors(), options_.optimiser, lr_factors(objective)),
      kept_(zeros({kMostKept}, DType::kFloat, options_.device)) {
  objective_.on_forward_end_ = [this] { after(Phase::kForward); };
}

// Gradients that a failed step has left lie in the arena's memory.
TrainStep::~TrainStep() {
  objective_.on_forward_end_ = nullptr;
  objective_.trained().clear_grads();
}

void TrainStep::note(const std::string& line) const {
  if (options_.note) options_.note(line);
}

void TrainStep::after(Phase phase) const {
  if (options_.after) options_.after(phase);
}

// Does once what has to wait for the first batch, whose sizes nobody knew before; then makes the step's labels.
void TrainStep::prepare(std::span<const BatchTensors> views, int64_t teacher) {
  objective_.trained().train();
  if (!std::exchange(prepared_, true)) {
    if (!views.empty() && views.front().image.dtype() == DType::kBf16) optimiser_.keep_bf16_copies();
    const std::string line = objective_.prepare(views);
    if (!line.empty()) note(line);
  }
  const NoGrad no_grad;
  objective_.make_labels(views, teacher);
}

void TrainStep::run(std::span<const BatchTensors> views, int64_t teacher) {
  prepare(views, teacher);
  if (!captured_) {
    captured_.emplace(options_.device, options_.graph, counters(objective_.trained()),
                      [this](const std::string& line) { note(line); });
  }
  captured_->run([&] { compute(views); });
}

void TrainStep::run_once(std::span<const BatchTensors> views, int64_t teacher) {
  prepare(views, teacher);
  compute(views);
}

void TrainStep::compute(std::span<const BatchTensors> views) {
  objective_.trained().clear_grads();
  const LossResult loss = objective_.losses(views);
  after(Phase::kLoss);
  {
    const ProfileRange range("bwd");
    backward(loss.total);
  }
  after(Phase::kBackward);
  {
    const ProfileRange range("update");
    optimiser_.step();
  }
  objective_.trained().clear_grads();
  keep_losses(loss);
  after(Phase::kUpdate);
}

void TrainStep::keep_losses(const LossResult& loss) {
  kept_names_.clear();
  const auto keep = [&](const std::string& name, const Tensor& value) {
    check(static_cast<int64_t>(kept_names_.size()) < kMostKept, "train step: expected at most ", kMostKept - 1,
          " parts and figures of a loss, got more");
    float* to = kept_.data<float>() + kept_names_.size();
    copy_bytes(to, kept_.device(), value.raw(), value.device(), sizeof(float));
    kept_names_.push_back(name);
  };
  keep("total", loss.total);
  for (const auto& [name, value] : loss.parts) keep(name, value);
  losses_end_ = kept_names_.size();
  for (const auto& [name, value] : loss.figures) keep(name, value);
}

std::vector<std::pair<std::string, double>> TrainStep::kept(size_t first, size_t end) const {
  const std::vector<float> values = to_vector<float>(kept_);
  std::vector<std::pair<std::string, double>> named;
  for (size_t i = first; i < end; ++i) named.emplace_back(kept_names_[i], static_cast<double>(values[i]));
  return named;
}

}  // namespace depthstill
