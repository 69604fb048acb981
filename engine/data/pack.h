// The packed form of a data set (engine/data/packed.h, docs/packed-data.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/data/dataset.h"

namespace depthstill {

struct PackOptions {
  int workers = 2;                              // threads that decode
  uint64_t shard_bytes = uint64_t{2048} << 20;  // a shard ends with the sample that reaches this
};

struct PackReport {
  int64_t written = 0, kept = 0;  // samples
  uint64_t bytes = 0;             // size of what was written
  double max_error = 0;           // metres, of depths that 16 bits do not hold exactly
};

// Packs `data` into `folder`, which has to be empty, missing, or a pack of the same settings: then it goes on where it
// stopped. `progress` is called before each sample and after the last, with the samples done. When a sample cannot be
// read, or `progress` throws, the samples before are kept in a shard and the error goes on to the caller.
PackReport pack(const std::shared_ptr<const Dataset>& data, const std::string& folder, const PackOptions& options,
                const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace depthstill
