// The command line of `depthstill eval`.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "engine/eval/bootstrap.h"
#include "engine/eval/score.h"
#include "tools/args.h"
#include "tools/stored_predictions.h"

namespace depthstill {

struct EvalArgs {
  std::string recipe, weights, data, split;
  std::string dataset, root, list, image_folder, depth_folder, predictions;
  std::string teacher, crop, json, csv, picture, save;
  std::string protocol, align, pred_kind, pred_names = "flat", pred_resize, truth_size, metric_space = "depth",
                                          nonfinite;
  std::vector<std::string> overrides;
  double depth_units = 0, depth_float_units = 0, teacher_units = 0, teacher_float_units = 0;
  double min_depth = 0, max_depth = 0, pred_units = 0;
  int fit_side = -1;
  BootstrapOptions bootstrap;
  std::string bootstrap_by = "image", compare;
  bool no_flip = false, teacher_similarity = false, median_scaling = false, allow_outside = false;
  ScoreOptions scoring;
  ExistingArgs existing;
  ComputeArgs compute;
};

// With `command`, which it is read into.
void add_eval_options(CLI::App& command, EvalArgs& args);

// What an option's words stand for.
template <class T>
struct Choice {
  const char* name;
  T value;
};
inline constexpr std::array<Choice<PredictionNames>, 3> kNamings{
    {{"flat", PredictionNames::kFlat}, {"marigold", PredictionNames::kMarigold}, {"image", PredictionNames::kImage}}};
inline constexpr std::array<Choice<Quantity>, 2> kQuantities{
    {{"depth", Quantity::kDepth}, {"disparity", Quantity::kInverseDepth}}};

}  // namespace depthstill
