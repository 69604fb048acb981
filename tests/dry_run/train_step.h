// A training step of a TIE-KD student on the simulated H100.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/optim.h"
#include "losses/distillation.h"
#include "models/student.h"

namespace depthstill {

class DryStep {
 public:
  DryStep(const std::string& model, int64_t batch, DType dtype) {
    const Device device = Device::kCuda;
    student_ = make_student(model, {});
    student_->to(device);
    student_->train();
    image_ = empty({batch, 352, 704, 3}, dtype, device);
    teacher_ = empty({batch, 352, 704}, DType::kFloat, device);
    optimiser_.emplace(student_->parameter_tensors(), AdamWOptions{});
    loss_ = named_loss("tie_kd");
  }

  // Forward, loss, backward, update: what tools/trainer does between two batches.
  void operator()() {
    const StudentOptions& options = student_->options();
    const DpmBins bins{static_cast<int>(options.bins), options.d_min, options.d_max};
    const Tensor output = student_->forward(image_, loss_.top_rows);
    const LossResult loss = distillation_loss(output, teacher_, Tensor(), loss_, bins);
    backward(loss.total);
    optimiser_->step();
    optimiser_->clear_grads();
  }

 private:
  std::unique_ptr<Student> student_;
  Tensor image_, teacher_;
  LossOptions loss_;
  std::optional<AdamW> optimiser_;
};

}  // namespace depthstill
