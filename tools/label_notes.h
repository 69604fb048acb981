// Says which labels of regions teach nothing: they are constant, or hold nothing finite, and no pixel of them counts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/loader.h"

namespace depthstill {

class LabelNotes {
 public:
  // Both return a line for the log, or nothing. `step`: from 1.
  std::optional<std::string> after_batch(const Batch& batch, int64_t step, const RegionLoading& regions,
                                         const Dataset& data);
  // How many were so, if that was not said; a warning, once, where it was more than one in a hundred. epoch: from 0.
  // Throws Error after one in which no label taught anything.
  std::optional<std::string> after_epoch(int64_t epoch);

 private:
  int64_t labels_ = 0, empty_ = 0;
  int64_t labels_before_ = 0, empty_before_ = 0;  // at the end of the epoch before
  int64_t notes_ = 0;
  bool warned_ = false;
  std::vector<std::string> named_;  // files, the first three
};

}  // namespace depthstill
