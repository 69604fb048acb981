#include "engine/data/packed.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "engine/io/checksum.h"
#include "engine/io/json_text.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kMagic[] = "DSSHARD1";  // 8 characters, at both ends of a shard
constexpr const char *kManifest = "packed.json", *kFormat = "depthstill packed data";
constexpr int kVersion = 1;
constexpr size_t kAlign = 64;  // alignment of planes: a cache line and the widest vector

struct Footer {
  uint64_t index_offset = 0, index_bytes = 0, index_checksum = 0;
  char magic[8] = {};
};
static_assert(sizeof(Footer) == 32);

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

uint64_t parse_hex(const std::string& text, const std::string& path) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  check(error == std::errc() && end == text.data() + text.size(), path, ": expected a hexadecimal number, found '",
        printable(text), "'");
  return value;
}

// Turns what the JSON library throws into an Error that names the file.
template <class F>
auto parsing(const std::string& path, const F& f) {
  try {
    return f();
  } catch (const Json::exception& error) {
    fail(path, ": expected an index of packed data, found: ", printable(error.what()));
  }
}

Json to_json(ImageSize size) { return Json::array({size.width, size.height}); }
ImageSize size_of(const Json& json, const std::string& path) {
  return {integer_of<int>(json.at(0), path), integer_of<int>(json.at(1), path)};
}

Json to_json(const PackedPlane& plane) {
  Json json = {{"at", plane.offset}, {"size", to_json(plane.size)}};
  if (plane.metres_per_unit > 0) json["metres_per_unit"] = plane.metres_per_unit;
  if (plane.max_error > 0) json["max_error"] = plane.max_error;
  return json;
}

PackedPlane plane_of(const Json& sample, const char* name, const std::string& path) {
  PackedPlane plane;
  const auto found = sample.find(name);
  if (found == sample.end()) return plane;
  plane.offset = integer_of<uint64_t>(found->at("at"), path);
  plane.size = size_of(found->at("size"), path);
  plane.metres_per_unit = found->value("metres_per_unit", 0.0);
  plane.max_error = found->value("max_error", 0.0);
  return plane;
}

Json to_json(const PackedEntry& entry) {
  Json json = {
      {"name", entry.line.image},     {"depth_name", entry.line.depth},       {"focal", entry.line.focal},
      {"line", entry.line.line},      {"stored", to_json(entry.stored_size)}, {"checksum", hex(entry.checksum)},
      {"image", to_json(entry.image)}};
  if (entry.depth.size.width > 0) json["depth"] = to_json(entry.depth);
  if (entry.teacher.size.width > 0) json["teacher"] = to_json(entry.teacher);
  return json;
}

PackedEntry entry_of(const Json& json, const std::string& path) {
  PackedEntry entry;
  entry.line = {json.at("name").get<std::string>(), json.at("depth_name").get<std::string>(),
                json.at("focal").get<double>(), integer_of<int>(json.at("line"), path)};
  entry.stored_size = size_of(json.at("stored"), path);
  entry.checksum = parse_hex(json.at("checksum").get<std::string>(), path);
  entry.image = plane_of(json, "image", path);
  entry.depth = plane_of(json, "depth", path);
  entry.teacher = plane_of(json, "teacher", path);
  return entry;
}

size_t plane_bytes(const PackedPlane& plane, size_t bytes_per_pixel) {
  return static_cast<size_t>(plane.size.width) * static_cast<size_t>(plane.size.height) * bytes_per_pixel;
}

void check_plane(const std::string& where, const PackedPlane& plane, ImageSize size, size_t bytes_per_pixel,
                 uint64_t end) {
  const bool sides = plane.size.width >= 1 && plane.size.height >= 1 && plane.size.width <= kMaxImageSide &&
                     plane.size.height <= kMaxImageSide && plane.size == size;
  check(sides, where, ": expected planes of ", size, ", found ", plane.size);
  check(plane.offset % kAlign == 0 && plane.offset <= end && plane_bytes(plane, bytes_per_pixel) <= end - plane.offset,
        where, ": expected a plane within the ", end, " bytes before the index, found one at ", plane.offset);
}

void check_entry(const std::string& path, const PackedEntry& entry, uint64_t end) {
  const std::string where = concat_text(path, ": sample ", one_line(entry.line.image));
  check_plane(where, entry.image, entry.image.size, 3, end);
  for (const PackedPlane* plane : {&entry.depth, &entry.teacher}) {
    if (plane->size.width == 0) continue;
    check_plane(where, *plane, entry.image.size, 2, end);
    check(std::isfinite(plane->metres_per_unit) && plane->metres_per_unit > 0, where,
          ": expected a depth scale > 0, found ", plane->metres_per_unit);
  }
}

}  // namespace

std::optional<PackManifest> read_pack_manifest(const std::string& folder) {
  const std::string path = (fs::path(folder) / kManifest).string();
  std::error_code error;
  if (!fs::exists(path, error)) {
    const bool empty = !fs::exists(folder, error) || (fs::is_directory(folder, error) && fs::is_empty(folder, error));
    check(empty, folder, ": expected packed data or an empty folder, found something else");
    return std::nullopt;
  }
  const std::string text = read_text(path);
  return parsing(path, [&] {
    const Json json = Json::parse(text);
    check(json.value("format", "") == kFormat, path, ": expected packed data, found another file of that name");
    const auto version = integer_of<int64_t>(json.at("version"), path);
    check(version == kVersion, path, ": expected version ", kVersion, ", found ", version, "; pack the data anew");
    PackManifest manifest;
    for (const auto& [key, value] : json.at("settings").items()) {
      manifest.settings.emplace_back(key, value.get<std::string>());
    }
    manifest.list_checksum = json.at("list_checksum").get<std::string>();
    manifest.samples = integer_of<int64_t>(json.at("samples"), path);
    manifest.skipped = integer_of<int64_t>(json.at("skipped"), path);
    return manifest;
  });
}

void write_pack_manifest(const std::string& folder, const PackManifest& manifest) {
  Json settings = Json::object();
  for (const auto& [key, value] : manifest.settings) settings[key] = value;
  const Json json = {{"format", kFormat},
                     {"version", kVersion},
                     {"samples", manifest.samples},
                     {"skipped", manifest.skipped},
                     {"list_checksum", manifest.list_checksum},
                     {"settings", settings}};
  make_folder(folder);
  write_file((fs::path(folder) / kManifest).string(), json_text(json, 2) + '\n');
}

void check_settings(const std::string& what, const PackSettings& found, const PackSettings& wanted,
                    const std::string& remedy) {
  const auto value_of = [](const PackSettings& settings, const std::string& key) {
    const auto at = std::find_if(settings.begin(), settings.end(), [&](const auto& s) { return s.first == key; });
    return at == settings.end() ? std::string("nothing") : at->second;
  };
  const auto compare = [&](const std::string& key) {
    const std::string old = value_of(found, key), value = value_of(wanted, key);
    check(old == value, what, " with ", one_line(key), " = ", one_line(old), ", but the recipe says ", one_line(value),
          "; ", remedy);
  };
  for (const auto& setting : wanted) compare(setting.first);
  for (const auto& setting : found) compare(setting.first);
}

void check_pack_settings(const std::string& folder, const PackManifest& packed, const PackManifest& expected) {
  check_settings(folder + ": packed", packed.settings, expected.settings,
                 "pack into another folder, or set what was packed");
  check(expected.list_checksum.empty() || packed.list_checksum == expected.list_checksum, folder,
        ": the list has changed since it was packed; pack it anew, into another folder");
}

std::string shard_name(int64_t first) {
  char text[48];
  std::snprintf(text, sizeof(text), "samples_%08lld.shard", static_cast<long long>(first));
  return text;
}

std::optional<int64_t> first_of_shard(const std::string& name) {
  constexpr std::string_view before = "samples_", after = ".shard";
  if (!name.starts_with(before) || !name.ends_with(after)) return std::nullopt;
  int64_t first = -1;
  std::from_chars(name.data() + before.size(), name.data() + name.size() - after.size(), first);
  return first >= 0 && shard_name(first) == name ? std::optional(first) : std::nullopt;
}

std::vector<int64_t> list_shards(const std::string& folder) {
  std::vector<int64_t> firsts;
  for (const auto& file : fs::directory_iterator(folder)) {
    if (const auto first = first_of_shard(file.path().filename().string())) firsts.push_back(*first);
  }
  std::sort(firsts.begin(), firsts.end());
  return firsts;
}

DepthUnits to_units(const SampleDepth& depth, double metres_per_unit) {
  std::vector<float> metres = depth.copy().values;
  DepthUnits result;
  result.units.resize(metres.size());
  const auto store = [&](double unit) {
    result.metres_per_unit = unit;
    result.max_error = 0;
    for (size_t i = 0; i < metres.size(); ++i) {
      const auto value = static_cast<double>(metres[i]);
      const double units = value > 0 ? std::clamp(std::round(value / unit), 1.0, 65535.0) : 0.0;
      result.units[i] = static_cast<uint16_t>(units);
      const auto back = static_cast<double>(static_cast<float>(units * unit));
      result.max_error = std::max(result.max_error, std::abs(back - value));
    }
  };
  if (metres_per_unit > 0) store(metres_per_unit);
  if (metres_per_unit > 0 && result.max_error == 0) return result;
  const float greatest = metres.empty() ? 0.0f : *std::max_element(metres.begin(), metres.end());
  store(greatest > 0 ? static_cast<double>(greatest) / 65535 : 1.0);
  return result;
}

ShardWriter::ShardWriter(const std::string& folder, int64_t first)
    : file_((fs::path(folder) / shard_name(first)).string()), first_(first) {
  char header[kAlign] = {};
  std::memcpy(header, kMagic, 8);
  write(header, sizeof(header));
}

void ShardWriter::write(const void* data, size_t bytes) {
  file_.write(data, bytes);
  at_ += bytes;
}

PackedPlane ShardWriter::write_plane(const void* data, size_t bytes, ImageSize size, uint64_t& checksum) {
  PackedPlane plane;
  plane.offset = at_;
  plane.size = size;
  checksum = checksum64({static_cast<const std::byte*>(data), bytes}, checksum);
  write(data, bytes);
  static constexpr char zeros[kAlign] = {};
  write(zeros, (kAlign - at_ % kAlign) % kAlign);
  return plane;
}

PackedPlane ShardWriter::write_depth(const SampleDepth& depth, double scale, uint64_t& checksum) {
  if (depth.empty()) return {};
  const DepthUnits stored = to_units(depth, scale);
  PackedPlane plane = write_plane(stored.units.data(), stored.units.size() * sizeof(uint16_t), depth.size(), checksum);
  plane.metres_per_unit = stored.metres_per_unit;
  plane.max_error = stored.max_error;
  max_error_ = std::max(max_error_, stored.max_error);
  return plane;
}

void ShardWriter::add(const Sample& sample, const ListEntry& line, double depth_scale, double teacher_scale) {
  PackedEntry entry;
  entry.line = line;
  entry.stored_size = sample.stored_size;
  entry.image = write_plane(sample.image.rgb.data(), sample.image.rgb.size(), sample.image.size(), entry.checksum);
  entry.depth = write_depth(sample.depth, depth_scale, entry.checksum);
  entry.teacher = write_depth(sample.teacher, teacher_scale, entry.checksum);
  entries_.push_back(std::move(entry));
}

void ShardWriter::commit() {
  Json samples = Json::array();
  for (const PackedEntry& entry : entries_) samples.push_back(to_json(entry));
  const std::string index = json_text({{"first", first_}, {"samples", samples}});
  Footer footer{at_, index.size(), checksum64(std::as_bytes(std::span(index))), {}};
  std::memcpy(footer.magic, kMagic, 8);
  write(index.data(), index.size());
  write(&footer, sizeof(footer));
  file_.commit();
}

Shard::Shard(const std::string& path) : file_(std::make_shared<const MappedFile>(path, "a shard of packed data")) {
  const std::span<const std::byte> bytes = file_->bytes();
  check(bytes.size() >= kAlign + sizeof(Footer) && std::memcmp(bytes.data(), kMagic, 8) == 0, path,
        ": expected a shard of packed data, found something else or a file cut short");
  Footer footer;
  std::memcpy(&footer, bytes.data() + bytes.size() - sizeof(Footer), sizeof(Footer));
  const uint64_t end = bytes.size() - sizeof(Footer);
  const bool whole = std::memcmp(footer.magic, kMagic, 8) == 0 && footer.index_offset <= end &&
                     footer.index_bytes == end - footer.index_offset;
  check(whole, path, ": expected the index at the end of the shard, found none: the file is cut short or damaged");
  const auto index = bytes.subspan(footer.index_offset, footer.index_bytes);
  check(checksum64(index) == footer.index_checksum, path, ": the shard's index is damaged (checksum)");
  parsing(path, [&] {
    const auto* text = reinterpret_cast<const char*>(index.data());
    const Json json = Json::parse(text, text + index.size());
    first_ = integer_of<int64_t>(json.at("first"), path);
    for (const Json& sample : json.at("samples")) {
      entries_.push_back(entry_of(sample, path));
      check_entry(path, entries_.back(), footer.index_offset);
    }
  });
  check(!entries_.empty(), path, ": expected samples, found none");
}

void Shard::load(const PackedEntry& entry, Sample& sample) const {
  const std::byte* base = file_->bytes().data();
  uint64_t checksum = 0;
  const auto plane = [&](const PackedPlane& where, size_t bytes_per_pixel) {
    const std::span<const std::byte> bytes(base + where.offset, plane_bytes(where, bytes_per_pixel));
    checksum = checksum64(bytes, checksum);
    return bytes;
  };
  const auto depth = [&](const PackedPlane& where) {
    SampleDepth map;
    if (where.size.width == 0) return map;
    const auto bytes = plane(where, sizeof(uint16_t));
    map.width = where.size.width;
    map.height = where.size.height;
    map.units = {reinterpret_cast<const uint16_t*>(bytes.data()), bytes.size() / sizeof(uint16_t)};
    map.metres_per_unit = where.metres_per_unit;
    map.owner = file_;
    return map;
  };
  const auto pixels = plane(entry.image, 3);
  sample.stored_size = entry.stored_size;
  sample.image.width = entry.image.size.width;
  sample.image.height = entry.image.size.height;
  sample.image.rgb = {reinterpret_cast<const uint8_t*>(pixels.data()), pixels.size()};
  sample.image.owner = file_;
  sample.depth = depth(entry.depth);
  sample.teacher = depth(entry.teacher);
  check(checksum == entry.checksum, path(), ": sample ", one_line(entry.line.image), " is damaged: expected checksum ",
        hex(entry.checksum), ", found ", hex(checksum), "; delete the shard and run `depthstill pack` again");
}

PackedSet::PackedSet(const std::string& folder) {
  check(fs::is_directory(folder), folder, ": expected a folder that `depthstill pack` has written, found none");
  std::optional<PackManifest> manifest = read_pack_manifest(folder);
  check(manifest.has_value(), folder, ": expected packed data, found an empty folder");
  manifest_ = std::move(*manifest);
  int64_t next = 0;
  for (const int64_t first : list_shards(folder)) {
    if (first != next) break;
    const Shard& shard = shards_.emplace_back((fs::path(folder) / shard_name(first)).string());
    check(shard.first() == first, shard.path(), ": expected sample ", first, " first, found ", shard.first());
    next += static_cast<int64_t>(shard.entries().size());
  }
  check(next == manifest_.samples, folder, ": expected ", manifest_.samples, " samples, found ", next,
        next < manifest_.samples ? "; run `depthstill pack` again to go on where it stopped" : "");
}

const Shard& PackedSet::shard_of(int64_t index) const {
  check(index >= 0 && index < size(), "packed data: expected a sample below ", size(), ", got ", index);
  const auto after = std::upper_bound(shards_.begin(), shards_.end(), index,
                                      [](int64_t value, const Shard& shard) { return value < shard.first(); });
  return *std::prev(after);
}

const PackedEntry& PackedSet::entry(int64_t index) const {
  const Shard& shard = shard_of(index);
  return shard.entries()[static_cast<size_t>(index - shard.first())];
}

void PackedSet::load(Sample& sample) const { shard_of(sample.index).load(entry(sample.index), sample); }

}  // namespace depthstill
