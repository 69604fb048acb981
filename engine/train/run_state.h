// The file that a training run resumes from: a module's state, its optimiser's moments, the position in the data, and
// entries of the caller's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/optim.h"

namespace depthstill {

// A RunPosition says where a run is.
struct RunPosition {
  int64_t epoch = 0, step = 0;  // epoch of the next batch, and step within it
  int64_t updates = 0;          // updates of the optimiser
};

// The tensors of the file, in its names: the module's state and the moments.
std::vector<NamedTensor> run_tensors(const Module& module, const AdamW& optimiser);

// `fingerprint`: the settings that a resumed run must share, as text. `extra`: other entries of the metadata.
void save_run_state(const std::string& path, const Module& module, const AdamW& optimiser, const RunPosition& position,
                    const std::string& fingerprint, const Metadata& extra);

struct LoadedRun {
  RunPosition position;
  Metadata metadata;  // all of the file's
};

// Throws Error if the file's metadata contradicts `expected`, or if it is of a run with another fingerprint; nothing is
// changed then.
LoadedRun load_run_state(const std::string& path, Module& module, AdamW& optimiser, const std::string& fingerprint,
                         const Metadata& expected);

}  // namespace depthstill
