// What a run leaves behind and resumes from: RUN/last.safetensors holds weights, buffers, optimiser moments and the
// position in the data; RUN/best.safetensors and RUN/epoch_NNN.safetensors hold weights and buffers only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "engine/checkpoint.h"
#include "engine/optim.h"
#include "models/depth_model.h"

namespace depthstill {

struct RunState {
  int64_t epoch = 0, step = 0;     // of the next batch: epoch, and step within it
  int64_t updates = 0;             // of the optimiser
  int64_t unjudged_epoch = -1;     // trained, but its validation was interrupted; -1: none
  int64_t best_epoch = -1;         // -1: none yet
  double best_value = 0;           // of the selection metric
  std::optional<bool> fused_head;  // whether steps make a DPM head's logits again; none before the first one
  std::string fingerprint;         // of the settings that a resumed run must share
};

void save_run_state(const std::string& path, const DepthModel& student, const AdamW& optimiser, const RunState& state);

// Throws Error if the file is of another student, or of a run with another fingerprint; nothing is changed then.
RunState load_run_state(const std::string& path, DepthModel& student, AdamW& optimiser, const std::string& fingerprint);

// Weights and buffers, with what make_model() needs to build the network again. Floats are stored as kF32, kF16 or
// kBf16.
void save_model(const std::string& path, const DepthModel& student, std::optional<int64_t> epoch = {},
                StoredType floats = StoredType::kF32);
std::map<std::string, std::string> describe(const DepthModel& student);  // that metadata

// Any file that models/checkpoint_keys.h knows. Where it does not say what the network is, as published checkpoints do
// not, that is inferred from names and shapes.
std::unique_ptr<DepthModel> load_model(const std::string& path);

// Reads weights into an existing student; published checkpoints' unused layers are passed over.
void load_weights(DepthModel& student, const std::string& path);

// What training starts from: a whole network, or an encoder alone (ImageNet classifier, DINOv2); the rest then keeps
// its values.
struct InitialWeights {
  bool folded = false;  // recalibrate_batch_norm() is advisable
  std::string text;     // what was read, for the log
};
InitialWeights load_initial(DepthModel& student, const std::string& path);

}  // namespace depthstill
