// AdamW over the parameters of a model (kernels/adamw.h has the formulas): weight decay on all of them, gradients
// clipped by their global norm. Defaults are those of the TIE-KD recipe.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/tensor.h"
#include "kernels/adamw.h"

namespace depthstill {

struct AdamWOptions {
  double lr = 1e-3;
  AdamWParams params = {};  // beta1 0.95, beta2 0.99, eps 1e-8, weight_decay 0.01
  float clip_norm = 35.0f;  // largest norm of all gradients together; <= 0: no clipping
};

class AdamW {
 public:
  // The parameters are fp32 leaves on one device. They are updated in place, so move a model before handing them over.
  // lr_factors: the factor of each parameter's learning rate; none: 1 for all.
  AdamW(std::vector<Tensor> parameters, const AdamWOptions& options, std::vector<float> lr_factors = {});
  ~AdamW();
  AdamW(const AdamW&) = delete;
  AdamW& operator=(const AdamW&) = delete;

  // On CUDA, from now on there is a bf16 copy of every parameter, which updates write along and copy_() renews: kernels
  // that multiply in bf16 then need not round it in each pass. They go with the optimiser, which a graph that was
  // captured meanwhile must not outlive. On the CPU nothing changes.
  void keep_bf16_copies();

  // Sets the learning rate of the updates that follow; a schedule gives it (schedule.h).
  void set_lr(double lr);

  // One update with the gradients that backward() left in the parameters, each multiplied by `unscale` first. A
  // parameter without a gradient is left as it is. If the norm of the gradients is not finite nothing changes (see
  // last_step()).
  void step(float unscale = 1.0f);
  void clear_grads();

  // A StepReport says what the last step found; last_step() waits for the device.
  struct StepReport {
    float grad_norm = 0.0f;  // norm before clipping
    bool finite = true;
    int64_t dropped = 0;  // steps so far that changed nothing because their norm was not finite
    bool broken = false;  // a step so far left a parameter or a moment that is not finite
  };
  StepReport last_step() const;

  // A checkpoint holds the number of updates and the moments, in the order of the parameters. To resume, write into the
  // moments (copy_) and set the number.
  int64_t updates() const;
  void set_updates(int64_t updates);
  const std::vector<Tensor>& first_moments() const { return m_; }
  const std::vector<Tensor>& second_moments() const { return v_; }

 private:
  AdamWState read_state() const;
  AdamWState* state() const;

  std::vector<Tensor> parameters_, m_, v_, copies_;  // no copies: none are kept
  std::vector<float> lr_factors_;
  AdamWOptions options_;
  Device device_ = Device::kCpu;
  Tensor state_;           // one AdamWState
  Tensor sum_of_squares_;  // one double
  Tensor broken_;          // one int32: not 0 if an update left something that is not finite
  float lr_ = 0.0f;        // the rate that state_ holds
  std::vector<AdamWSlot> slots_;
};

}  // namespace depthstill
