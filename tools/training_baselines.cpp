#include "tools/training_baselines.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/eval/evaluate.h"
#include "engine/io/atomic_file.h"
#include "engine/io/text_file.h"
#include "tools/progress.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr uint64_t kMaxFile = uint64_t{1} << 20;  // bytes: at most 512 rows as text are far less

// What the baselines depend on, beside the maps themselves.
std::string key_of(const Dataset& data, const Protocol& protocol) {
  std::string key = "list " + data.list_checksum() + "; " + describe(protocol);
  for (const auto& [name, value] : pack_settings(data.spec())) {
    const bool of_image = name == "data.resize_height" || name == "data.resize_width" || name == "data.crop";
    if (!of_image) key.append("; ").append(name).append(" ").append(value);
  }
  return key;
}

// Nothing if the file is missing, is not ours, or was measured otherwise.
std::optional<Baselines> read_kept(const std::string& path, const std::string& key) {
  if (!fs::exists(path)) return {};
  try {
    const ordered_json json = ordered_json::parse(read_text(path, kMaxFile));
    if (json.at("key").get<std::string>() != key) return {};
    Baselines baselines{json.at("list").get<std::string>(), json.at("images").get<int64_t>(), {}};
    for (const ordered_json& each : json.at("baselines")) {
      baselines.each.push_back({each.at("name").get<std::string>(), each.at("text").get<std::string>(),
                                each.at("rows").get<std::vector<float>>()});
      check(!baselines.each.back().rows.empty(), path, ": expected rows, found none");
    }
    return baselines;
  } catch (const nlohmann::json::exception&) {
    return {};
  } catch (const Error&) {
    return {};
  }
}

void write_kept(const std::string& path, const std::string& key, const Baselines& baselines) {
  ordered_json json = {{"key", key}, {"list", baselines.list}, {"images", baselines.images}};
  for (const Baseline& each : baselines.each) {
    json["baselines"].push_back({{"name", each.name}, {"text", each.text}, {"rows", each.rows}});
  }
  write_file(path, json.dump() + '\n');
}

// Packed maps may be resized, and the protocol's frame is that of the files.
DatasetSpec files_spec(const Recipe& recipe) {
  DatasetSpec spec = dataset_spec(recipe, "train");
  spec.packed.clear();
  return spec;
}

Baselines find_or_measure(const Recipe& recipe, const Protocol& protocol, const std::string& folder, bool keep) {
  const Dataset data(files_spec(recipe));
  const DatasetSpec& spec = data.spec();
  const std::string key = key_of(data, protocol), path = (fs::path(folder) / kBaselinesFile).string();
  if (!folder.empty()) {
    if (auto kept = read_kept(path, key)) return *kept;
  }
  const std::vector<EvalItem> items = eval_items(data, protocol);
  const MapFormat& format = protocol.target == Target::kTeacher ? spec.teacher->format : spec.depth;
  const Baselines baselines =
      measure_baselines(protocol, spec.list, items, format, interruptible_progress("baselines", "img"));
  if (keep) write_kept(path, key, baselines);
  return baselines;
}

}  // namespace

std::optional<Baselines> training_baselines(const Recipe& recipe, const Protocol& protocol, const std::string& folder,
                                            bool keep) {
  try {
    return find_or_measure(recipe, protocol, folder, keep);
  } catch (const Error& error) {
    log_line(concat_text("note: no baselines beside the figures: ", error.what()));
    return {};
  }
}

std::optional<Dataset> training_files(const Recipe& recipe) {
  try {
    return Dataset(files_spec(recipe));
  } catch (const Error&) {
    return {};
  }
}

}  // namespace depthstill
