// What a training run needs of its settings, lists and samples. `train` refuses what does not meet it before it begins;
// `check-data` asks the same of every sample.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/data/augment.h"
#include "engine/data/dataset.h"
#include "engine/data/loader.h"
#include "losses/tie_kd.h"

namespace depthstill {

struct Recipe;

struct TrainingNeeds {
  std::string model;      // name, for messages
  bool augment = true;    // false: whole frames, unchanged
  AugmentSpec crop;       // the training crop, with the divisor of both sides of what the network sees
  int top_rows = 0;       // rows of it without loss
  LoaderOptions loading;  // batch_size and drop_last are read
  std::string weights;    // file to start from; empty: none
  DepthTarget target = DepthTarget::kTeacher;
  bool regions = false;  // of images of any size are learnt from, with labels that are no part of a sample
};

// "model.init: /x/y.pth: expected weights, found no such file ..."
std::string missing_weights(const char* key, const std::string& path);

TrainingNeeds needs_of(const Recipe& recipe);

// What would stop a run as far as settings and the list tell: a crop that the network does not take, top_rows as high
// as the crop, fewer samples than a batch, missing weights, lines without the map that is learnt from.
std::vector<std::string> training_problems(const Dataset& data, const TrainingNeeds& needs);

// Why a sample of this size cannot be trained on, as "expected ..., found ..."; empty: it can. `first`: the size of the
// list's first sample, which whole frames in batches share.
std::string frame_problem(const TrainingNeeds& needs, ImageSize size, ImageSize first);

// The map of a sample that is learnt from; empty: it has none.
const SampleDepth& target_of(const Sample& sample, DepthTarget target);

// The range within which depths count (kernels/depth_target.h).
DepthRange range_of(const DatasetSpec& spec);

// Whether a pixel of `map` counts in the rows from first_row on. Those above never get a loss: in a crop they lie among
// its top_rows.
bool has_target(const SampleDepth& map, DepthRange range, int first_row);

// "expected depths between 0.001 and 80 m from row 110 on (loss.top_rows), found none"
std::string no_target_text(DepthRange range, int first_row);

}  // namespace depthstill
