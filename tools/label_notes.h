// Says which labels of regions teach nothing: they are constant, or hold nothing finite, and no pixel of them counts.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/loader.h"

namespace depthstill {

class LabelNotes {
 public:
  // All return a line for the log, or nothing. Stored labels are known with their batch. `step`: from 1.
  std::optional<std::string> after_batch(const Batch& batch, int64_t step, const RegionLoading& regions,
                                         const Dataset& data);
  // Those of online teachers, once the steps are done. tally: all of them so far; faults(): those of the images of the
  // last batch that one of them has labelled; batch: the last one, null: not known.
  std::optional<std::string> after_steps(const LabelTally& tally, const std::string& steps, const Batch* batch,
                                         const std::function<std::vector<LabelFault>()>& faults);
  // How many were so, if that was not said; a warning, once, where it was more than one in a hundred. epoch: from 0.
  // Throws Error after one in which no label taught anything.
  std::optional<std::string> after_epoch(int64_t epoch);

 private:
  std::optional<std::string> add(const LabelTally& labels, const std::string& steps, const std::string& first);
  std::string examples() const;  // ", such as a.npy, b.npy"

  LabelTally all_;
  LabelTally before_epoch_;  // all_ at the end of the epoch before
  LabelTally made_;          // those of online teachers
  int64_t notes_ = 0;
  bool warned_ = false;
  std::vector<std::string> named_;  // labels' files or images, the first three
};

}  // namespace depthstill
