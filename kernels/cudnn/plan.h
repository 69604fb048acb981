// Execution plans of a graph: what cuDNN offers for the GPU behind a handle or, without any GPU, for one described by a
// JSON record (so that CI can check every plan).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/library_options.h"
#include "kernels/core/stream.h"
#include "kernels/cudnn/graph.h"

namespace depthstill::cudnn {

struct Target {
  cudnnHandle_t handle = nullptr;  // a real GPU, or
  std::string device_json;         // the properties of one that is not here
  int64_t memory_bytes = 0;        // memory of either
};
Target current_target(Stream stream);
Target h100_target();  // without a GPU

using TensorPointers = std::vector<std::pair<TensorId, const void*>>;

class Plan {
 public:
  // Makes a plan again from what json() gave; returns nothing if this cuDNN and GPU do not accept it any more.
  static std::optional<Plan> from_json(const Target& target, const std::string& json);
  std::string json() const;  // one line
  // The number of cuDNN's engine, which json() names; -1 where it does not.
  int engine() const;

  size_t workspace_bytes() const { return workspace_bytes_; }
  void execute(Stream stream, const TensorPointers& tensors, void* workspace) const;

 private:
  friend class PlanSearch;
  Plan(Descriptor plan, std::string name);

  Descriptor plan_;
  std::string name_;
  size_t workspace_bytes_ = 0;
};

// The order in which the configurations of a heuristic's list are tried, given the engine of each. cuDNN sorts by its
// own guess, and the tile sizes of one engine fill the top. So the first ten are at most six of one engine, then comes
// the first of every other engine, then the rest.
std::vector<size_t> spread_over_engines(const std::vector<int64_t>& engines);

// The memory that one convolution may take besides its tensors: what the options say, else a fiftieth of the device's.
int64_t workspace_cap_bytes(const Target& target, const LibraryOptions& options);

struct PlanRequest {
  const LibraryOptions* options = nullptr;  // null: those of the process
  int limit = 16;                           // number of plans that keep to the options
  bool fallback_engines = true;             // the general, slow ones at the end of the list as well
  bool compiled_engines = true;             // also those that compile a kernel when the plan is made, in a second
  bool reduced_sums = false;                // also engines that add up in less than fp32
};

struct PlanOffer {
  std::vector<Plan> plans;  // best guess of the heuristic first; beyond it in the order of spread_over_engines
  int need_driver = 0;      // plans that were compiled for the GPU and lacked only a driver to be loaded by
  std::string refusal;      // the last message of those that were refused

  bool accepted() const { return !plans.empty() || need_driver > 0; }
};

// A graph or a plan that is refused is no reason to throw.
PlanOffer find_plans(const Target& target, const Graph& graph, const PlanRequest& request = {});

}  // namespace depthstill::cudnn
