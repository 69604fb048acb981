#include "engine/data/region_teacher.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "engine/io/atomic_file.h"
#include "engine/io/json_text.h"
#include "engine/io/npy.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kMostBytes = 1 << 20;  // of regions.json

// Two neighbours of a resized pixel along one axis of the region, and the weight of the second.
struct Neighbours {
  int first, second;
  float weight;
};

std::vector<Neighbours> neighbours_of(int side, int size) {
  std::vector<Neighbours> all;
  for (int i = 0; i < size; ++i) {
    const double at = std::clamp((i + 0.5) * side / size - 0.5, 0.0, side - 1.0);
    const int first = static_cast<int>(at);
    all.push_back({first, std::min(first + 1, side - 1), static_cast<float>(at - first)});
  }
  return all;
}

// What the stored maps of a teacher are read as: whoever uses them decides what a number means.
MapFormat kept(MapFormat format) {
  format.unusable = MapFormat::Unusable::kKept;
  return format;
}

class WholeImageTeacher final : public RegionTeacher {
 public:
  WholeImageTeacher(const DatasetSpec& set, const TeacherSpec& spec) : spec_(spec), maps_(set, spec) {
    spec_.format = kept(spec.format);
  }
  bool every_sample() const override { return true; }
  std::string path(const Dataset& data, int64_t index, int64_t) const override {
    return maps_.path(data.entry(index), data.where(index));
  }
  RegionLabel load(const Dataset& data, const Sample& sample, const Region& region, int64_t epoch,
                   int size) const override {
    const std::string file = path(data, sample.index, epoch);
    return at_line(sample.where, [&]() -> RegionLabel {
      DepthMap map = data.fitted(read_map(file, spec_.format), sample, file);
      to_inverse_depth(map);
      return {region_label(map, region, size), {}};
    });
  }

 private:
  TeacherSpec spec_;
  TeacherFolder maps_;
};

class UnknowingTeacher final : public RegionTeacher {
 public:
  bool every_sample() const override { return true; }
  std::string path(const Dataset&, int64_t, int64_t) const override { return ""; }
  RegionLabel load(const Dataset&, const Sample&, const Region& region, int64_t, int size) const override {
    check(region.patches.empty(), "region: expected none with patches, of which nothing is known");
    return {std::vector<float>(static_cast<size_t>(size) * static_cast<size_t>(size), kUnknown), {}};
  }
};

class OnlineTeacher final : public RegionTeacher {
 public:
  explicit OnlineTeacher(std::string weights) : weights_(std::move(weights)) {}
  bool online() const override { return true; }
  bool every_sample() const override { return true; }
  std::string path(const Dataset&, int64_t, int64_t) const override { return weights_; }
  RegionLabel load(const Dataset&, const Sample&, const Region&, int64_t, int) const override { return {}; }

 private:
  std::string weights_;
};

class RegionFolderTeacher final : public RegionTeacher {
 public:
  RegionFolderTeacher(std::string folder, const MapKind& unstated, int patch)
      : folder_(std::move(folder)), unstated_(unstated), patch_(patch) {}
  bool every_sample() const override { return false; }
  std::string path(const Dataset& data, int64_t index, int64_t epoch) const override {
    return (fs::path(folder_) / region_file(data.entry(index).image, epoch)).string();
  }
  RegionLabel load(const Dataset& data, const Sample& sample, const Region& region, int64_t epoch,
                   int size) const override {
    const std::string file = path(data, sample.index, epoch);
    return at_line(sample.where, [&]() -> RegionLabel {
      const auto patches = static_cast<int64_t>(region.patches.size());
      DepthMap map = read_planes(file, 1 + patches);
      to_inverse_depth(map);
      Region whole{};
      whole.side = map.width;
      RegionLabel label{region_label(map, whole, size), {}};
      label.patches.assign(map.values.begin() + int64_t{map.width} * map.width, map.values.end());
      return label;
    });
  }

 private:
  // The planes one below the other.
  DepthMap read_planes(const std::string& file, int64_t planes) const {
    const std::vector<uint8_t> bytes = read_bytes(file);
    FloatArray array = decode_npy(bytes, file);
    if (array.shape.size() == 2) array.shape.insert(array.shape.begin(), 1);
    const bool square = array.shape.size() == 3 && array.shape[0] == planes && array.shape[1] == array.shape[2] &&
                        array.shape[1] >= 1 && array.shape[1] <= kMaxImageSide;
    check(square && (planes == 1 || array.shape[1] == patch_), file, ": expected ",
          planes == 1 ? "the square map of a region" : concat_text("maps (", planes, ", ", patch_, ", ", patch_, ')'),
          ", found ", list_text(array.shape, [](int64_t n) { return std::to_string(n); }), " numbers");
    const auto statement = named_statement(parse_npy(bytes, bytes.size(), file).comment, file);
    DepthMap map{static_cast<int>(array.shape[2]), static_cast<int>(planes * array.shape[1]), std::move(array.values),
                 statement ? statement->kind : unstated_};
    for (float& value : map.values) value *= static_cast<float>(statement ? statement->unit : 1.0);
    return map;
  }

  std::string folder_;
  MapKind unstated_;
  int patch_;
};

}  // namespace

void to_inverse_depth(DepthMap& map) {
  const bool depth = map.kind.quantity == Quantity::kDepth;
  for (float& value : map.values) {
    const float inverse = depth ? 1.0f / value : value;
    const bool counts = std::isfinite(value) && (!depth || value > 0) && std::isfinite(inverse);
    value = counts ? inverse : kUnknown;
  }
  map.kind.quantity = Quantity::kInverseDepth;
}

std::vector<float> region_label(const DepthMap& map, const Region& region, int size) {
  check(region.top >= 0 && region.left >= 0 && region.side >= 1 && region.top + region.side <= map.height &&
            region.left + region.side <= map.width,
        "region: expected one inside a map of ", map.size(), ", found ", region.side, " pixels from row ", region.top,
        ", column ", region.left);
  const std::vector<Neighbours> axis = neighbours_of(region.side, size);
  const auto value = [&](int row, int column) {
    if (region.mirrored) column = region.side - 1 - column;
    return map.values[static_cast<size_t>(region.top + row) * static_cast<size_t>(map.width) +
                      static_cast<size_t>(region.left + column)];
  };
  std::vector<float> label;
  label.reserve(static_cast<size_t>(size) * static_cast<size_t>(size));
  for (const Neighbours& rows : axis) {
    for (const Neighbours& columns : axis) {
      const float weights[4] = {(1 - rows.weight) * (1 - columns.weight), (1 - rows.weight) * columns.weight,
                                rows.weight * (1 - columns.weight), rows.weight * columns.weight};
      const float values[4] = {value(rows.first, columns.first), value(rows.first, columns.second),
                               value(rows.second, columns.first), value(rows.second, columns.second)};
      const auto nearest = std::max_element(weights, weights + 4) - weights;
      float sum = 0, known = 0;
      for (int k = 0; k < 4; ++k) {
        if (weights[k] == 0 || std::isnan(values[k])) continue;
        sum += weights[k] * values[k];
        known += weights[k];
      }
      label.push_back(std::isnan(values[nearest]) ? kUnknown : sum / known);
    }
  }
  return label;
}

std::string describe(LabelFault fault) {
  if (fault == LabelFault::kEmpty) return "holds no finite value";
  return fault == LabelFault::kConstant ? "is constant" : "";
}

std::string label_problem(const std::vector<float>& label) {
  float least = std::numeric_limits<float>::infinity(), greatest = -least;
  for (const float value : label) {
    if (std::isnan(value)) continue;
    least = std::min(least, value);
    greatest = std::max(greatest, value);
  }
  return describe(label_fault(least, greatest));
}

std::unique_ptr<RegionTeacher> whole_image_teacher(const DatasetSpec& set, const TeacherSpec& spec) {
  return std::make_unique<WholeImageTeacher>(set, spec);
}

std::unique_ptr<RegionTeacher> unknowing_teacher() { return std::make_unique<UnknowingTeacher>(); }

std::unique_ptr<RegionTeacher> online_teacher(const std::string& weights) {
  return std::make_unique<OnlineTeacher>(weights);
}

bool is_region_folder(const std::string& folder) { return fs::exists(fs::path(folder) / kRegionsFile); }

std::string region_file(const std::string& image, int64_t epoch) {
  return concat_text('e', epoch, '/', flat_name(image, ".npy"));
}

RegionFolderSettings read_region_settings(const std::string& folder) {
  const std::string path = (fs::path(folder) / kRegionsFile).string();
  try {
    const auto json = nlohmann::ordered_json::parse(read_text(path, kMostBytes));
    const auto version = integer_of<int64_t>(json.at("version"), path);
    check(version == 1, path, ": expected version 1, found ", version);
    RegionFolderSettings found;
    for (const auto& [key, value] : json.at("settings").items()) {
      found.settings.emplace_back(key, value.get<std::string>());
    }
    found.list_checksum = json.at("list_checksum").get<std::string>();
    found.epochs = integer_of<int64_t>(json.at("epochs"), path);
    found.teacher = json.at("teacher").get<std::string>();
    return found;
  } catch (const nlohmann::json::exception& error) {
    fail(path, ": expected what `teach --regions` writes, found ", one_line(error.what()));
  }
}

void write_region_settings(const std::string& folder, const RegionFolderSettings& settings) {
  nlohmann::ordered_json json = {{"version", 1}};
  json["settings"] = nlohmann::ordered_json::object();
  for (const auto& [key, value] : settings.settings) json["settings"][key] = value;
  json["list_checksum"] = settings.list_checksum;
  json["epochs"] = settings.epochs;
  json["teacher"] = settings.teacher;
  write_file((fs::path(folder) / kRegionsFile).string(), json_text(json, 1) + '\n');
}

RegionFolderSettings check_region_folder(const std::string& folder, const RegionFolderSettings& wanted) {
  RegionFolderSettings found = read_region_settings(folder);
  check_settings(folder + ": labels of regions", found.settings, wanted.settings,
                 "`teach --regions` writes others into another folder");
  check(found.list_checksum.empty() || wanted.list_checksum.empty() || found.list_checksum == wanted.list_checksum,
        folder, ": the list has changed since these labels were written; `teach --regions` writes them anew");
  return found;
}

std::unique_ptr<RegionTeacher> region_folder_teacher(const std::string& folder, const RegionFolderSettings& wanted,
                                                     const MapKind& unstated, int patch) {
  const RegionFolderSettings found = check_region_folder(folder, wanted);
  check(found.epochs >= wanted.epochs, folder, ": expected labels of ", wanted.epochs, " epochs, found ", found.epochs,
        "; `teach --regions` adds those that are missing");
  return std::make_unique<RegionFolderTeacher>(folder, unstated, patch);
}

}  // namespace depthstill
