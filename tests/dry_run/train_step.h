// A training step of any student on the simulated H100: TIE-KD's at 352 x 704, others at the size of their input.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/train/step.h"
#include "losses/tie_kd.h"
#include "models/model_table.h"

namespace depthstill {

class DryStep {
 public:
  static constexpr int kTopRows = 110;  // rows of 352 that TIE-KD on KITTI leaves out
  DryStep(const std::string& model, int64_t batch, DType dtype) {
    const Device device = Device::kCuda;
    model_ = make_model(model, {.head = default_head(model)});
    model_->to(device);
    model_->train();
    const InputRule& rule = model_->input_rule();
    const bool any_size = rule.fit == InputRule::Fit::kPad;
    const int64_t height = any_size ? 352 : rule.size, width = any_size ? 704 : rule.size;
    views_ = {
        {empty({batch, height, width, 3}, dtype, device), empty({batch, height, width}, DType::kFloat, device), {}}};
    TieKdOptions options;
    const bool dpm = model_->options().head == Head::kDpm;
    options.loss = named_loss(dpm ? "tie_kd" : "l1");
    options.loss.top_rows = dpm ? kTopRows : 0;
    objective_.emplace(*model_, options);
    step_.emplace(*objective_, TrainStep::Options{.device = device, .graph = false});
  }

  // Does what the trainer does between two batches, in the arena and the graph of the test.
  void operator()() { step_->compute(views_); }

  // Runs the step's first part, which leaves gradients.
  void backward_only() {
    model_->clear_grads();
    backward(objective_->losses(views_).total);
  }

  std::vector<Tensor> counters() const { return TrainStep::counters(*model_); }

  void fuse_head(bool on = true) { objective_->restore({{"fused_head", on ? "1" : "0"}}); }
  DepthModel& model() { return *model_; }

 private:
  std::unique_ptr<DepthModel> model_;
  BatchViews views_;
  std::optional<TieKd> objective_;
  std::optional<TrainStep> step_;
};

}  // namespace depthstill
