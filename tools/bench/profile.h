// Training steps of a recipe under the profiler: what each layer and op takes and how far from the bound it is. Without
// a GPU, what they would take on one at least.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "tools/bench/op_table.h"
#include "tools/recipe.h"

namespace depthstill {

struct ProfileOptions {
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;            // of the activations
  int64_t first_step = 3, last_step = 5;  // those that are profiled, from 1; the ones before warm up
  bool random_data = false;               // in place of the recipe's data set
  bool dead_rows = true;                  // as in training
  std::optional<bool> fused_head = {};    // default: as training chooses
};

struct Profile {
  MachinePeak peak;
  OpTable table;
  int64_t batch = 0, height = 0, width = 0;
  bool fused_head = false;
};

// cudaProfilerStart and -Stop stand around the profiled steps, for nsys and ncu. Steps run op by op, never as a CUDA
// graph. Throws Error, or Interrupted after SIGINT or SIGTERM.
Profile profile_training(const Recipe& recipe, const ProfileOptions& options);

// What a training step asks of a GPU, from a dry run: nothing is computed, and no time is taken.
struct StepEstimate {
  Profile profile;                                  // with work and without times; the peak is that of the options
  int64_t kernels = 0, copies = 0;                  // of a step: launches and calls of libraries; copies and memsets
  size_t step_bytes = 0;                            // of the tensors that the step makes, as planned (step_arena.h)
  size_t parameter_bytes = 0, optimiser_bytes = 0;  // that stay: parameters, and their moments
};

// After enable_dry_run(). The recipe's data set is not read; of the options, the device and the steps do not matter.
StepEstimate estimate_training(const Recipe& recipe, const ProfileOptions& options, const MachinePeak& peak);

}  // namespace depthstill
