// Decides whether a training step stores the logits of its DPM head or makes them again in the gradient
// (kernels/dpm/dpm_head.h). Storing them is more traffic, making them again more arithmetic: on CUDA the clock says
// which is faster, once for a shape, in a trial of the head and its loss alone. On the CPU they are stored
// (kernels/PERFORMANCE.md).
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "engine/ops_loss.h"
#include "kernels/plans/plan_cache.h"

namespace depthstill {

// The part of a training step that the choice is about.
struct DpmHeadProblem {
  DpmHead head;
  DpmBins bins;
  Shape x;               // map that the head reads, (N, rows, W, C)
  DType dtype{};         // type of x
  bool kl = true;        // true: the loss has a KL
  DpmOptions options{};  // options of the KL, and its rows
  bool depth = true;     // true: the loss sends a gradient to the depth
  Device device() const { return head.weight.device(); }
};

struct DpmHeadChoice {
  DpmHeadWay way = DpmHeadWay::kStored;
  std::string note;  // one line for the log; empty where there was nothing to choose
};

// `wanted` decides; without it the faster way is chosen, the fused one unless it is clearly slower, since it needs less
// memory. Where nothing may be timed (kernels/plans/timer.h), or on the emulated device, logits are stored, and so they
// are in any case where no kernels fuse. Takes memory for the trial, less than a step does, and gives it back: the call
// comes before the first step. Leaves the head's gradients cleared.
DpmHeadChoice choose_dpm_head_way(const DpmHeadProblem& problem, std::optional<DpmHeadWay> wanted);

// ---- for tests ----------------------------------------------------------------------------------------------------

// The choice on a clock of the caller's.
struct DpmHeadClock {
  plans::PlanCache* cache = nullptr;                                   // may be null
  std::function<double(DpmHeadWay way, double best_ms)> milliseconds;  // a clock as plans::Chooser's
};
DpmHeadChoice choose_dpm_head_way(const DpmHeadProblem& problem, std::optional<DpmHeadWay> wanted,
                                  const DpmHeadClock& clock);

// Head and loss on random data, forward and backward, as a training step runs them.
class DpmHeadTrial {
 public:
  explicit DpmHeadTrial(const DpmHeadProblem& problem);
  void run(DpmHeadWay way) const;
  // Measures what the device takes for it, in an arena of its own.
  double milliseconds(DpmHeadWay way, double best_ms) const;

 private:
  Tensor loss(DpmHeadWay way) const;

  DpmHeadProblem problem_;
  Tensor x_, teacher_;
};

}  // namespace depthstill
