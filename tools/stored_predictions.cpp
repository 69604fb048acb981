#include "tools/stored_predictions.h"

#include <array>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "engine/data/dataset.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

// The kind of a map that does not say it itself.
MapKind assumed_kind(std::optional<Quantity> quantity, const Protocol& protocol) {
  const AlignmentRow& row = row_of(protocol.alignment);
  const bool affine = row.ambiguity == Ambiguity::kScaleAndShift;
  const Quantity held = quantity.value_or(affine ? row.quantity : protocol.rules->predicts);
  return {held, affine && held != row.quantity ? Ambiguity::kScale : row.ambiguity};
}

// "a/b/rgb_0.png" -> "a/b/pred_0.png"
std::string marigold_name(const std::string& image) {
  const fs::path path(image);
  std::string name = path.filename().string();
  if (name.starts_with("rgb_")) name.erase(0, 4);
  return (path.parent_path() / ("pred_" + name)).string();
}

}  // namespace

StoredPredictions::StoredPredictions(std::string folder, PredictionNames names, std::optional<Quantity> quantity,
                                     double units, const Protocol& protocol)
    : folder_(std::move(folder)), names_(names), quantity_(quantity) {
  if (units > 0) format_.metres_per_unit = 1 / units;
  format_.unusable = MapFormat::Unusable::kKept;
  format_.kind = assumed_kind(quantity, protocol);
}

std::string StoredPredictions::path(const EvalItem& item) const {
  const std::string below = item.name.starts_with('/') ? item.name.substr(1) : item.name;
  const auto with = [&](const char* extension) {
    if (names_ == PredictionNames::kFlat) return (fs::path(folder_) / flat_name(item.name, extension)).string();
    const fs::path name = names_ == PredictionNames::kMarigold ? marigold_name(below) : below;
    return (fs::path(folder_) / name).replace_extension(extension).string();
  };
  for (const char* extension : {".npy", ".png", ".pfm"}) {
    if (std::string path = with(extension); fs::exists(path)) return path;
  }
  return with(".npy");
}

void StoredPredictions::check_exist(const std::vector<EvalItem>& items) const {
  check(fs::is_directory(folder_), folder_, ": expected a folder of predictions, found none");
  int64_t missing = 0;
  std::string first;
  std::unordered_map<std::string, const EvalItem*> owners;
  for (const EvalItem& item : items) {
    if (item.truth.empty()) continue;
    const std::string file = path(item);
    const auto [at, is_new] = owners.try_emplace(file, &item);
    check(is_new || at->second->name == item.name, item.where, ": expected a prediction of its own for ", item.name,
          ", found ", file, ", the one for ", at->second->name, ", too");
    if (fs::exists(file)) continue;
    if (++missing == 1) first = item.where + ": expected the prediction " + file + ", found none";
  }
  check(missing == 0, first, missing > 1 ? concat_text(" (and ", missing - 1, " more missing)") : "");
}

DepthMap StoredPredictions::read(const EvalItem& item) const {
  return at_line(item.where, [&] {
    const std::string file = path(item);
    DepthMap map = read_map(file, format_);
    check(!quantity_ || map.kind.quantity == *quantity_, file, ": expected ",
          *quantity_ == Quantity::kDepth ? "depth" : "inverse depth", " as --pred-kind says, found ", name_of(map.kind),
          ", as the file says");
    return map;
  });
}

}  // namespace depthstill
