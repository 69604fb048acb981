// The profiler shows what each layer and op of a recipe's training steps takes and how far from the bound it is; an
// estimate shows, without a GPU, what they would take on one at least.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "engine/train/objective.h"
#include "tools/bench/op_table.h"
#include "tools/recipe.h"

namespace depthstill {

struct ProfileOptions {
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;            // type of the activations
  int64_t first_step = 3, last_step = 5;  // steps that are profiled, from 1; the ones before warm up
  bool random_data = false;               // random values in place of the recipe's data set
  bool dead_rows = true;                  // default of training
  std::optional<bool> fused_head = {};    // default: as training chooses
};

struct Profile {
  MachinePeak peak;
  OpTable table;
  double decode_ms = 0, waited_ms = 0;  // of a thread that decodes, per image; of a step, for them
  int64_t batch = 0, height = 0, width = 0;
  bool fused_head = false;
};

// cudaProfilerStart and -Stop stand around the profiled steps, for nsys and ncu. Steps run op by op, never as a CUDA
// graph. Throws Error, or Interrupted after SIGINT or SIGTERM.
Profile profile_training(const Recipe& recipe, const ProfileOptions& options);

// A StepEstimate says what a training step asks of a GPU. It comes from a dry run: nothing is computed or timed.
struct StepEstimate {
  Profile profile;                                  // table with work and without times; peak of the options
  int64_t kernels = 0, copies = 0;                  // a step's launches and calls of libraries; copies and memsets
  size_t step_bytes = 0;                            // size of the tensors that a step makes, as planned (step_arena.h)
  size_t parameter_bytes = 0, optimiser_bytes = 0;  // bytes that stay: parameters, and their moments
  LabelMemory labels;                               // of networks that make labels before a step
};

// The caller has called enable_dry_run(). The recipe's data set is not read, the files of networks that make labels
// are; of several teachers the first one that is online labels the step. Of the options, the device and the steps do
// not matter.
StepEstimate estimate_training(const Recipe& recipe, const ProfileOptions& options, const MachinePeak& peak);

}  // namespace depthstill
