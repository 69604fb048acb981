// An Objective says what one training step computes: which parameters are trained, and the loss that they descend.
// TrainStep (train/step.h) does the rest: backward, update, capture. A loss of your own is a class that derives from
// Objective; tools/library/examples/own_loss.cpp is one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/data/batch_tensors.h"
#include "engine/nn.h"
#include "kernels/depth_target.h"

namespace depthstill {

struct LossResult {
  Tensor total;                                       // one fp32 element, to call backward() on
  std::vector<std::pair<std::string, Tensor>> parts;  // names and values before weighting, without history, for the log
  // Figures of the step for the log that are no part of the loss, likewise.
  std::vector<std::pair<std::string, Tensor>> figures = {};
  Tensor depth = {};  // the predicted map, without history; undefined if there is none
};

// Parameters whose names begin with `prefix` learn at lr_factor times the learning rate.
struct ParameterGroup {
  std::string prefix;
  float lr_factor = 1.0f;
};

struct LabelMemory {
  size_t weights = 0;      // bytes of all frozen networks
  size_t temporaries = 0;  // most bytes that one of them takes while it runs
};

class Objective {
 public:
  virtual ~Objective() = default;

  // This module is updated and saved.
  virtual Module& trained() = 0;
  // A parameter belongs to the first group that it fits; one that fits none has the factor 1.
  virtual std::vector<ParameterGroup> groups() const { return {}; }

  // The loss of a batch; `views` are those that the loader draws, the image normalised. Nothing in here may wait for
  // the device or copy to the host: on CUDA it is captured in a graph, which is why all that changes between steps has
  // to lie in tensors that stay. What the forward pass makes must be gone when this returns, but for what the tape
  // holds.
  virtual LossResult losses(std::span<const BatchTensors> views) = 0;

  // Runs before each step, outside of its tape and its graph: frozen networks write their labels into tensors that
  // losses() reads, which are those of `views` or the objective's own. teacher: the batch's (Batch::teacher).
  virtual void make_labels(std::span<const BatchTensors> views, int64_t teacher) {
    static_cast<void>(views);
    static_cast<void>(teacher);
  }
  // The memory that make_labels() takes beside the step's; the temporaries are known after prepare().
  virtual LabelMemory label_memory() const { return {}; }

  // Runs once, before the first step, and may time things. Returns a line for the log, or nothing.
  virtual std::string prepare(std::span<const BatchTensors> views) {
    static_cast<void>(views);
    return "";
  }

  // What the targets of all steps so far had to learn from; nothing: nobody counts. Waits for the device.
  virtual std::optional<TargetTally> targets() const { return std::nullopt; }

  // Whether the trained module as it is gives finite results for the first image of `views`, used as in prediction.
  // This is asked before its weights replace others on disk. Waits for the device.
  virtual bool predicts(std::span<const BatchTensors> views) {
    static_cast<void>(views);
    return true;
  }

  // These choices of prepare() decide the last bits of a run: they are kept in its checkpoint, and restore() gets them
  // before prepare() when the run is resumed. `saved` holds other entries as well, and lacks these in an older
  // checkpoint.
  virtual Metadata choices() const { return {}; }
  virtual void restore(const Metadata& saved) { static_cast<void>(saved); }

 protected:
  // Marks the end of the forward pass within losses(), for those who time both parts. The call may be left out.
  void end_forward() const {
    if (on_forward_end_) on_forward_end_();
  }

 private:
  friend class TrainStep;
  std::function<void()> on_forward_end_;
};

}  // namespace depthstill
