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
  // A warning, once, where more than one label in a hundred was so.
  std::optional<std::string> after_epoch();

 private:
  int64_t labels_ = 0, empty_ = 0;
  bool warned_ = false;
  std::vector<std::string> named_;  // files, the first three
};

}  // namespace depthstill
