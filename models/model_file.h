// Networks in files: our own, which say what network they hold, and published ones, whose names and shapes tell it
// (models/checkpoint_keys.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/checkpoint.h"
#include "models/depth_model.h"

namespace depthstill {

// Saves weights and buffers, with what make_model() needs to build the network again. Floats are stored as kF32, kF16
// or kBf16.
void save_model(const std::string& path, const DepthModel& model, std::optional<int64_t> epoch = {},
                StoredType floats = StoredType::kF32);
Metadata describe(const DepthModel& model);  // that metadata

// Loads any file that models/checkpoint_keys.h knows. Where it does not say what the network is, as published
// checkpoints do not, that is inferred from names and shapes.
std::unique_ptr<DepthModel> load_model(const std::string& path);

// Reads weights into an existing model; published checkpoints' unused layers are passed over.
void load_weights(DepthModel& model, const std::string& path);

// Training starts from a whole network, or from an encoder alone (ImageNet classifier, DINOv2); the rest then keeps its
// values.
struct InitialWeights {
  bool folded = false;  // recalibrate_batch_norm() is advisable
  std::string text;     // description of what was read, for the log
};
InitialWeights load_initial(DepthModel& model, const std::string& path);

}  // namespace depthstill
