// Trains a network as a recipe says and leaves a run folder behind:
//   recipe.toml  metrics.jsonl  last.safetensors  best.safetensors  epoch_NNN.safetensors  report.html
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/device.h"
#include "engine/dtype.h"
#include "tools/recipe.h"

namespace depthstill {

struct TrainOptions {
  std::string out;  // the run folder
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;  // type of the activations
  bool resume = false;
  bool dead_rows = true;           // leave out decoder rows that cannot reach the loss: the same result, faster
  std::optional<bool> fused_head;  // never store the logits of a DPM head; unset: the faster way
  bool graph = true;               // on CUDA, replay the step as a graph (engine/captured_step.h)
  std::function<void(int64_t updates)> on_step;  // a callback after each step; it may be empty
};

// Throws Error when training cannot start or go on, Interrupted after SIGINT or SIGTERM; what is written stays valid.
void train(const Recipe& recipe, const TrainOptions& options);

// The objective of a recipe over its network. `labels`: label_networks() of the recipe.
std::unique_ptr<Objective> make_objective(DepthModel& model, const Recipe& recipe, const LabelNetworks& labels,
                                          bool dead_rows, std::optional<bool> fused_head);

}  // namespace depthstill
