#include "tools/stored_predictions.h"

#include <algorithm>
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

StoredPredictions::StoredPredictions(std::string place, PredictionNames names, std::optional<Quantity> quantity,
                                     double units, const Protocol& protocol)
    : place_(std::move(place)), names_(names), quantity_(quantity) {
  if (units > 0) format_.metres_per_unit = 1 / units;
  format_.unusable = MapFormat::Unusable::kKept;
  format_.kind = assumed_kind(quantity, protocol);
}

std::string StoredPredictions::path(const EvalItem& item) const {
  if (fs::is_regular_file(place_)) return place_;
  const std::string below = item.name.starts_with('/') ? item.name.substr(1) : item.name;
  const auto with = [&](const char* extension) {
    if (names_ == PredictionNames::kFlat) return (fs::path(place_) / flat_name(item.name, extension)).string();
    const fs::path name = names_ == PredictionNames::kMarigold ? marigold_name(below) : below;
    return (fs::path(place_) / name).replace_extension(extension).string();
  };
  for (const char* extension : {".npy", ".png", ".pfm"}) {
    if (std::string path = with(extension); fs::exists(path)) return path;
  }
  return with(".npy");
}

void StoredPredictions::check_stack(const std::vector<EvalItem>& items) {
  const int64_t maps = stack_size(place_), lines = static_cast<int64_t>(items.size());
  const int64_t with_truth =
      std::count_if(items.begin(), items.end(), [](const EvalItem& item) { return !item.truth.empty(); });
  check(maps == lines || maps == with_truth, place_, ": expected ", lines, " maps, one per line of the list",
        with_truth < lines ? concat_text(", or ", with_truth, ", one per line with truth") : "", ", found ", maps);
  int64_t next = 0;
  for (const EvalItem& item : items) {
    if (maps == lines || !item.truth.empty()) in_stack_[item.where] = next++;
  }
}

void StoredPredictions::check_exist(const std::vector<EvalItem>& items) {
  if (fs::is_regular_file(place_)) return check_stack(items);
  check(fs::is_directory(place_), place_, ": expected a folder of predictions or a stack, found none");
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

MapReader StoredPredictions::open(const EvalItem& item) const {
  return at_line(item.where, [&] {
    const std::string file = path(item);
    MapReader map =
        in_stack_.empty() ? MapReader(file, format_) : MapReader::of_stack(file, in_stack_.at(item.where), format_);
    check(!quantity_ || map.kind().quantity == *quantity_, file, ": expected ",
          *quantity_ == Quantity::kDepth ? "depth" : "inverse depth", " as --pred-kind says, found ",
          name_of(map.kind()), ", as the file says");
    return map;
  });
}

}  // namespace depthstill
