// A training step of any student on the simulated H100: TIE-KD's at 352 x 704, others at the size of their input.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/optim.h"
#include "losses/tie_kd.h"
#include "models/depth_model.h"

namespace depthstill {

class DryStep {
 public:
  DryStep(const std::string& model, int64_t batch, DType dtype) {
    const Device device = Device::kCuda;
    student_ = make_model(model, {.head = default_head(model)});
    student_->to(device);
    student_->train();
    const InputRule& rule = student_->input_rule();
    const bool any_size = rule.fit == InputRule::Fit::kPad;
    const int64_t height = any_size ? 352 : rule.size, width = any_size ? 704 : rule.size;
    image_ = empty({batch, height, width, 3}, dtype, device);
    teacher_ = empty({batch, height, width}, DType::kFloat, device);
    optimiser_.emplace(student_->parameter_tensors(), AdamWOptions{});
    loss_ = named_loss(student_->options().head == Head::kDpm ? "tie_kd" : "l1");
  }

  // Forward, loss, backward, update: what tools/trainer does between two batches.
  void operator()() {
    backward_only();
    optimiser_->step();
    optimiser_->clear_grads();
  }

  // The first three, which leave gradients.
  void backward_only() {
    optimiser_->clear_grads();
    const LossResult loss = forward();  // the output is gone by now, as in training
    backward(loss.total);
  }

  std::vector<Tensor> counters() const {
    std::vector<Tensor> found;
    for (const StateEntry& entry : student_->state()) {
      if (entry.tensor->dtype() == DType::kInt64) found.push_back(*entry.tensor);
    }
    return found;
  }

  void fuse_head(bool on = true) { fused_head_ = on; }
  DepthModel& student() { return *student_; }

 private:
  LossResult forward() const {
    const Prediction output =
        fused_head_ ? student_->forward_before_head(image_, loss_.top_rows) : student_->forward(image_, loss_.top_rows);
    return distillation_loss(output, teacher_, Tensor(), loss_, student_->bins());
  }

  bool fused_head_ = false;
  std::unique_ptr<DepthModel> student_;
  Tensor image_, teacher_;
  LossOptions loss_;
  std::optional<AdamW> optimiser_;
};

}  // namespace depthstill
