// Networks in files: our own, which say what network they hold, and published ones, whose names and shapes tell it
// (models/checkpoint_keys.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/checkpoint.h"
#include "models/depth_model.h"
#include "models/dinov2.h"

namespace depthstill {

// A NetworkRecord says what network weights belong to, and how its training used it.
struct NetworkRecord {
  std::string architecture;
  ModelOptions options;
  std::optional<TrainedUse> use;
};

// The record in a file's metadata: ours have one, but for the use in those of older versions; published ones have none.
std::optional<NetworkRecord> record_of(const WeightsFile& file);
Metadata describe(const DepthModel& model);     // the network as metadata, with the normalisation of its input
Metadata metadata_of(const DepthModel& model);  // the same with its trained_use(): the whole record

// Saves weights and buffers with the record. Floats are stored as kF32, kF16 or kBf16.
void save_model(const std::string& path, const DepthModel& model, std::optional<int64_t> epoch = {},
                StoredType floats = StoredType::kF32);

// Loads any file that models/checkpoint_keys.h knows. `otherwise`, if there is one, is asked for what the file leaves
// open; an answer for another architecture is passed over, another contradiction is an Error. What is then still open
// is inferred from names and shapes.
std::unique_ptr<DepthModel> load_model(const std::string& path, const std::function<NetworkRecord()>& otherwise = {});

// Reads weights into an existing model, which takes over the trained use that the file states. Published checkpoints'
// unused layers are passed over. Throws Error if the file says that it is of another network.
void load_weights(DepthModel& model, const std::string& path);

// The DINOv2 encoder of the network `name`, from a file of that encoder or of a whole network that has it. Throws Error
// for another one's.
std::unique_ptr<DinoV2> load_dinov2(std::string_view name, const std::string& path);

// Training starts from a whole network, or from an encoder alone (ImageNet classifier, DINOv2); the rest then keeps its
// values.
enum class InitialParts : uint8_t { kAll, kEncoder };  // kEncoder: of a whole network, too, the encoder alone
struct InitialWeights {
  bool folded = false;  // recalibrate_batch_norm() is advisable
  std::string text;     // description of what was read, for the log
};
InitialWeights load_initial(DepthModel& model, const std::string& path, InitialParts parts = InitialParts::kAll);

}  // namespace depthstill
