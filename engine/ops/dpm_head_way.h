// Whether a training step stores the logits of its DPM head or makes them again in the gradient (kernels/dpm_head.h).
// Storing them is more traffic, making them again more arithmetic: on CUDA the clock says which is faster, once for a
// shape, in a trial of the head and its loss alone. On the CPU they are stored (kernels/PERFORMANCE.md).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "kernels/plans/plan_cache.h"
#include "losses/tie_kd.h"
#include "models/depth_model.h"

namespace depthstill {

// What of a training step decides it.
struct HeadProblem {
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;               // of the activations
  int64_t batch = 0, height = 0, width = 0;  // of the images
  int64_t first_row = 0;                     // that is computed, of the image's rows
  LossOptions loss;
};

struct HeadChoice {
  bool fused = false;  // makes them again
  std::string note;    // one line for the log; empty where there was nothing to choose
};

// `wanted` decides; without it the faster way, the fused one unless it is clearly slower, since it needs less memory.
// Where nothing may be timed (kernels/plans/timer.h), or on the emulated device, logits are stored, and so they are in
// any case where no kernels fuse. Takes memory for the trial, less than a step does, and gives it back: to be called
// before the first step. Leaves the student's gradients cleared.
HeadChoice choose_head(DepthModel& student, const HeadProblem& problem, std::optional<bool> wanted);

// Whether there is a DPM head, and kernels for this type that fuse it with its loss.
bool can_fuse_head(const DepthModel& student, Device device, DType dtype);

// ---- for tests ----------------------------------------------------------------------------------------------------

// The choice on a clock of the caller's.
struct HeadClock {
  plans::PlanCache* cache = nullptr;                               // may be null
  std::function<double(bool fused, double best_ms)> milliseconds;  // as plans::Chooser's
};
HeadChoice choose_head(const DepthModel& student, const HeadProblem& problem, std::optional<bool> wanted,
                       const HeadClock& clock);

// Head and loss on random data, forward and backward, as a training step runs them.
class HeadTrial {
 public:
  HeadTrial(DepthModel& student, const HeadProblem& problem);
  void run(bool fused) const;
  // What the device takes for it, in an arena of its own.
  double milliseconds(bool fused, double best_ms) const;

 private:
  Tensor loss(bool fused) const;

  DepthModel& student_;
  HeadProblem problem_;
  Tensor x_, teacher_;
};

}  // namespace depthstill
