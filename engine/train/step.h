// The one text of a training step: labels, forward pass and loss of an objective, backward, AdamW's update. On CUDA it
// runs in an arena of its own and becomes one graph (engine/captured_step.h).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/captured_step.h"
#include "engine/optim.h"
#include "engine/train/objective.h"

namespace depthstill {

class TrainStep {
 public:
  enum class Phase : uint8_t { kForward, kLoss, kBackward, kUpdate };

  struct Options {
    AdamWOptions optimiser = {};
    Device device = Device::kCpu;
    bool graph = true;  // on CUDA, replay the step as a graph
    // Takes lines for a log: what prepare() chose, and why a step could not be captured. It may be empty.
    std::function<void(const std::string& line)> note = {};
    // The step calls this when the host has given a phase to the device, in steps that run op by op. It may be empty.
    std::function<void(Phase)> after = {};
  };

  // The objective's module must be on the device and not move any more; the objective must outlive the step.
  TrainStep(Objective& objective, Options options);
  ~TrainStep();
  TrainStep(const TrainStep&) = delete;
  TrainStep& operator=(const TrainStep&) = delete;

  // One update. `views` must be the same tensors every time, with other contents: their addresses are in the graph.
  // teacher: the batch's, for make_labels().
  void run(std::span<const BatchTensors> views, int64_t teacher = 0);
  // Does the same with other tensors, such as those of an incomplete batch: beside the graph and its arena.
  void run_once(std::span<const BatchTensors> views, int64_t teacher = 0);
  // Does what both do, in the arena and the graph of whoever calls it.
  void compute(std::span<const BatchTensors> views);

  AdamW& optimiser() { return optimiser_; }
  const AdamW& optimiser() const { return optimiser_; }
  bool captured() const { return captured_ && captured_->captured(); }
  const MemoryPlan* plan() const { return captured_ ? captured_->plan() : nullptr; }  // nullptr until there is one
  // The tensors that captured steps count with on the host (CapturedStep).
  static std::vector<Tensor> counters(const Module& module);

  // The losses of the last step, "total" first, then the parts, and its figures. Each waits for the device.
  std::vector<std::pair<std::string, double>> losses() const { return kept(0, losses_end_); }
  std::vector<std::pair<std::string, double>> figures() const { return kept(losses_end_, kept_names_.size()); }

 private:
  void prepare(std::span<const BatchTensors> views, int64_t teacher);
  void keep_losses(const LossResult& loss);
  std::vector<std::pair<std::string, double>> kept(size_t first, size_t end) const;
  void note(const std::string& line) const;
  void after(Phase phase) const;

  Objective& objective_;
  Options options_;
  std::optional<CapturedStep> captured_;  // empty until the first run(): a device has one step's arena at a time
  AdamW optimiser_;
  bool prepared_ = false;
  Tensor kept_;  // losses and figures of the last step, in the order of kept_names_
  std::vector<std::string> kept_names_;
  size_t losses_end_ = 0;  // those behind are figures
};

}  // namespace depthstill
