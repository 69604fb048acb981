// Reads every file of a data set once and says what is there and what would stop a training run.
#pragma once

#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "engine/data/dataset.h"
#include "engine/eval/protocol.h"
#include "tools/training_needs.h"

namespace depthstill {

struct CheckOptions {
  std::optional<TrainingNeeds> training;                      // needs that the training list must meet
  const Recipe* distilled = nullptr;                          // whose labels the training list must have
  std::optional<Protocol> protocol;                           // protocol that the second list is scored under
  std::string scored = "validation";                          // title of the second list
  int max_problems_shown = 50;                                // problems of each list; the rest is counted
  std::function<void(int64_t done, int64_t total)> progress;  // several threads call it; it may be empty
};

struct DataFindings {
  std::vector<std::string> problems;  // certain: training would fail or learn something else than is meant
  std::vector<std::string> notes;     // likely faults
};
// Lines whose image and ground truth stand in an earlier line, too: problems.
std::vector<std::string> repeated_lines(const Dataset& dataset);
// Whether the teacher's maps agree with ground truth, in up to `most_frames` frames spread over the list: what a
// training run looks at before it starts. Without ground truth there is a note only, on maps that look like inverse
// depth; nothing without a teacher. Files that cannot be read are left to the loading.
DataFindings compare_with_truth(const Dataset& dataset, int64_t most_frames = 32);

// The pixels of a sample's ground truth that the evaluation would compare; 0: it has none. Throws Error with the list
// line where the map cannot be read or does not suit the protocol.
int64_t scored_pixels(const Dataset& dataset, int64_t index, const Protocol& protocol);
// Throws Error unless some sample has such pixels. Reads ground truth until it finds one.
void check_scored(const Dataset& dataset, const Protocol& protocol);

// Reports counts, image sizes, depth ranges and shares of valid pixels of both sets, and each missing, unreadable or
// mismatched file with its list line; so are frames whose teacher's map and ground truth do not seem to belong
// together. A map without a depth that counts is a note; a list without one is a problem, as it is to `train`. So is a
// teacher's map of the scored list that cannot be read a note, because only pictures need it. Returns 0 if training
// would run and 1 if not. `scored`, the list that the report scores, may be null.
int check_data(const DatasetSpec& train, const DatasetSpec* scored, const CheckOptions& options, std::ostream& out);

}  // namespace depthstill
