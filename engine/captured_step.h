// A step that is repeated with tensors of the same shapes: run as it is on the CPU; on CUDA in an arena of its own
// (step_arena.h) and, from the fourth time on, as one CUDA graph, so that neither the host's pace nor launch overhead
// matters.
//
//   1st run   as it is: plans are built, tables made, scratch memory grows
//   2nd       the arena is planned
//   3rd       in the arena
//   4th ...   the graph, captured at the beginning of the 4th run, if graphs are wanted
//
// A captured step is frozen: host code in it does not run again, addresses and kernel arguments stay what they were. So
// what changes between steps must lie in device memory at fixed addresses (inputs, results, the learning rate), and
// what the host counts must be declared as a counter. It must outlive the parameters whose gradients the step makes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/step_arena.h"
#include "engine/tensor.h"

namespace depthstill {

class CapturedStep {
 public:
  using Log = std::function<void(const std::string& line)>;

  // `counters`: int64 tensors on the CPU to which every step adds the same numbers (batch norm's num_batches_tracked).
  // If a graph cannot be captured, `log` is told once and steps go on without.
  CapturedStep(Device device, bool graph, std::vector<Tensor> counters, Log log);
  ~CapturedStep();
  CapturedStep(const CapturedStep&) = delete;
  CapturedStep& operator=(const CapturedStep&) = delete;

  // Every run takes the same `step`. It must leave no tensor behind, clear gradients before its end, and be able to
  // begin anew after it has failed in the middle.
  void run(const std::function<void()>& step);

  bool captured() const { return graph_ != nullptr; }
  const MemoryPlan* plan() const { return arena_ ? arena_->plan() : nullptr; }  // nullptr until there is one

 private:
  void capture(const std::function<void()>& step);
  std::vector<int64_t> counts() const;
  void set_counts(const std::vector<int64_t>& counts);

  Device device_;
  bool want_graph_;
  std::vector<Tensor> counters_;
  Log log_;
  std::unique_ptr<StepArena> arena_;  // CUDA only
  void* graph_ = nullptr;
  std::vector<int64_t> advance_;  // increments of the counters in one step
  int64_t runs_ = 0;
};

}  // namespace depthstill
