// Training steps of a recipe under the profiler: what each layer and op takes and how far from the bound it is.
#pragma once

#include <cstdint>

#include "tools/op_table.h"
#include "tools/recipe.h"

namespace depthstill {

struct ProfileOptions {
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;                // of the activations
  int64_t first_step = 3, last_step = 5;      // those that are profiled, from 1; the ones before warm up
  bool random_data = false;                   // in place of the recipe's data set
  bool dead_rows = true, fused_head = false;  // as in training
};

struct Profile {
  MachinePeak peak;
  OpTable table;
  int64_t batch = 0, height = 0, width = 0;
};

// cudaProfilerStart and -Stop stand around the profiled steps, for nsys and ncu. Steps run op by op, never as a CUDA
// graph. Throws Error, or Interrupted after SIGINT or SIGTERM.
Profile profile_training(const Recipe& recipe, const ProfileOptions& options);

}  // namespace depthstill
