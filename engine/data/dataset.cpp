#include "engine/data/dataset.h"

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <span>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "engine/io/checksum.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

std::string join(const std::string& folder, const std::string& path) {
  return (std::filesystem::path(folder) / path).string();
}

std::string with_extension(const std::string& path, const std::string& extension) {
  return std::filesystem::path(path).replace_extension(extension).string();
}

// Whether a path leads out of the folder that it starts from.
bool leaves_folder(const std::string& path) {
  return path.starts_with('/') || *std::filesystem::path(path).lexically_normal().begin() == "..";
}

// A map may be as large as the stored image (it is then cropped like it) or as the cropped one.
DepthMap fit(DepthMap map, const DatasetSpec& spec, const Sample& sample, const std::string& path,
             bool cropped_allowed) {
  const Rect rect = crop_rect(spec.crop, sample.stored_size, path);
  const bool stored = map.size() == sample.stored_size, cropped = cropped_allowed && map.size() == rect.size();
  if (!stored && !cropped) {
    fail(path, ": expected a map of ", sample.stored_size, " like its image",
         cropped_allowed && !(rect.size() == sample.stored_size) ? concat_text(" or ", rect.size(), " like its crop")
                                                                 : "",
         ", found ", map.size());
  }
  if (!cropped && !(rect.size() == map.size())) map = crop(map, rect);
  return spec.resize ? resize(map, *spec.resize) : map;
}

// A map that says of itself that it is something else than what is learnt from and scored against is refused.
DepthMap read_stated(const std::string& path, const MapFormat& format) {
  DepthMap map = read_map(path, format);
  check(map.kind == format.kind, path, ": expected ", name_of(format.kind), ", found ", name_of(map.kind));
  return map;
}

std::string map_name(const std::string& image, TeacherNaming naming, const std::string& extension) {
  return naming == TeacherNaming::kFlat ? flat_name(image, extension) : with_extension(image, extension);
}

// Names of stored maps, each with the image that it belongs to.
class MapNames {
 public:
  explicit MapNames(RepeatedImages repeated = RepeatedImages::kAllowed) : repeated_(repeated) {}
  // Throws Error if another image's map has the name of this one's.
  void add(const ListEntry& entry, const std::string& map) {
    const auto [at, is_new] = owners_.try_emplace(map, entry.image, entry.line);
    const auto& [image, line] = at->second;
    check(is_new || image != entry.image || repeated_ == RepeatedImages::kAllowed, "expected each image once, found ",
          entry.image, " in line ", line, ", too");
    check(is_new || image == entry.image, "expected a map of its own for ", entry.image, ", found ", map,
          ", the name of that of ", image, " in line ", line, ", too");
  }

 private:
  RepeatedImages repeated_;
  std::unordered_map<std::string, std::pair<std::string, int>> owners_;
};

template <class F>
void check_names(const Dataset& data, MapNames names, const F& map_of) {
  BadLines bad;
  for (int64_t i = 0; i < data.size(); ++i) {
    bad.attempt(data.where(i), [&] { names.add(data.entry(i), map_of(data.entry(i))); });
  }
  bad.check_none();
}

// For a message: where a list's path starts.
std::string start_text(const DatasetSpec& spec) {
  namespace fs = std::filesystem;
  if (fs::path(spec.list).is_absolute()) return "";
  const std::string root = "; the root is " + (spec.root.empty() ? "." : spec.root);
  return fs::path(spec.root).is_absolute() ? root
                                           : root + ", relative to the current folder " + fs::current_path().string();
}

}  // namespace

std::string flat_name(const std::string& image, const std::string& extension) {
  std::string name = with_extension(image.starts_with('/') ? image.substr(1) : image, extension);
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

PackSettings pack_settings(const DatasetSpec& spec) {
  const auto number = [](double value) {
    std::ostringstream text;
    text << std::setprecision(10) << value;
    return text.str();
  };
  const auto flag = [](bool value) { return std::string(value ? "true" : "false"); };
  const char* const namings[] = {"flat", "beside", "truth"};
  PackSettings settings = {
      {"list", spec.list},
      {"data.image_folder", spec.image_folder},
      {"data.depth_folder", spec.depth_folder},
      {"data.crop", row_of(spec.crop).name},
      {"data.resize_height", number(spec.resize ? spec.resize->height : 0)},
      {"data.resize_width", number(spec.resize ? spec.resize->width : 0)},
      {"data.depth_units_per_metre", number(1 / spec.depth.metres_per_unit)},
      {"data.sort_by_image", flag(spec.order == ListOrder::kByImage)},
      {"data.skip_without_depth", flag(spec.skip_without_depth)},
      {"teacher", spec.teacher ? spec.teacher->folder : ""},
  };
  if (spec.teacher) {
    settings.emplace_back("data.teacher_naming", namings[static_cast<int>(spec.teacher->naming)]);
    settings.emplace_back("data.teacher_extension", spec.teacher->extension);
    settings.emplace_back("data.teacher_units_per_metre", number(1 / spec.teacher->format.metres_per_unit));
  }
  // Data that was packed before these settings existed has no word on them, which is metres.
  const auto add_float_units = [&](const char* key, const MapFormat& format) {
    if (format.metres_per_float_unit != 1) settings.emplace_back(key, number(1 / format.metres_per_float_unit));
  };
  add_float_units("data.depth_float_units", spec.depth);
  if (spec.teacher) add_float_units("data.teacher_float_units", spec.teacher->format);
  return settings;
}

void check_map_names(const Dataset& data, const std::string& extension, RepeatedImages repeated) {
  check_names(data, MapNames(repeated), [&](const ListEntry& entry) { return flat_name(entry.image, extension); });
}

void check_map_names(const Dataset& data, const TeacherSpec& teacher) {
  if (teacher.naming == TeacherNaming::kTruth) return;
  check_names(data, MapNames(),
              [&](const ListEntry& entry) { return map_name(entry.image, teacher.naming, teacher.extension); });
}

Dataset::Dataset(DatasetSpec spec, BadLines* bad_lines)
    : spec_(std::move(spec)),
      list_path_(join(spec_.root, spec_.list)),
      images_(spec_.root, spec_.image_folder, spec_.allow_outside),
      depths_(spec_.root, spec_.depth_folder, spec_.allow_outside) {
  if (spec_.teacher) teachers_.emplace(spec_, *spec_.teacher);
  if (!spec_.packed.empty()) {
    packed_ = std::make_shared<const PackedSet>(spec_.packed);
    check_pack_settings(spec_.packed, packed_->manifest(), {pack_settings(spec_), list_checksum()});
    for (int64_t i = 0; i < packed_->size(); ++i) entries_.push_back(packed_->entry(i).line);
    skipped_ = packed_->manifest().skipped;
    return;
  }
  BadLines bad;
  read_entries(bad);
  if (bad_lines == nullptr) bad.check_none();
  check(!entries_.empty() || bad.count > 0, list_path_,
        ": expected lines with ground truth, found only None; data.skip_without_depth = false keeps them, which a "
        "teacher suffices for");
  if (bad_lines != nullptr) *bad_lines = std::move(bad);
}

void Dataset::read_entries(BadLines& bad) {
  if (!std::filesystem::exists(list_path_)) {
    fail(std::filesystem::absolute(list_path_).string(), ": expected a list, found no such file", start_text(spec_));
  }
  const bool maps = spec_.teacher && spec_.teacher->naming != TeacherNaming::kTruth;
  MapNames names;
  for (ListEntry& entry : read_list(list_path_, spec_.order, &bad, spec_.list_form)) {
    if (spec_.skip_without_depth && entry.depth.empty()) {
      ++skipped_;
      continue;
    }
    bad.attempt(concat_text(list_path_, ':', entry.line), [&] {
      place(entry);
      if (maps) names.add(entry, map_name(entry.image, spec_.teacher->naming, spec_.teacher->extension));
      entries_.push_back(std::move(entry));
    });
  }
}

// Replaces the paths as the list has them by those below the folders.
void Dataset::place(ListEntry& entry) const {
  ListPath image = images_.place(entry.image);
  if (spec_.teacher && spec_.teacher->naming == TeacherNaming::kBeside) {
    check(!leaves_folder(image.name), "expected an image below ", join(spec_.root, spec_.image_folder),
          ", whose map has its place below the teacher's folder, found ", image.name);
  }
  entry.image = std::move(image.name);
  entry.image_tried = std::move(image.tried);
  if (entry.depth.empty()) return;
  ListPath depth = depths_.place(entry.depth);
  entry.depth = std::move(depth.name);
  entry.depth_tried = std::move(depth.tried);
}

std::string Dataset::list_checksum() const {
  if (!std::filesystem::exists(list_path_)) return "";
  const std::string text = read_text(list_path_);
  return std::to_string(checksum64(std::as_bytes(std::span(text))));
}

std::string Dataset::where(int64_t index) const { return concat_text(list_path_, ':', entry(index).line); }

std::string Dataset::image_path(int64_t index) const {
  const ListEntry& line = entry(index);
  return at_line(where(index), [&] { return images_.path({line.image, line.image_tried}); });
}

std::string Dataset::depth_path(int64_t index) const {
  const ListEntry& line = entry(index);
  if (line.depth.empty()) return "";
  return at_line(where(index), [&] { return depths_.path({line.depth, line.depth_tried}); });
}

std::string Dataset::extra_path(int64_t index) const {
  const ListEntry& line = entry(index);
  if (line.extra.empty()) return "";
  return at_line(where(index), [&] { return depths_.path(depths_.place(line.extra)); });
}

std::string Dataset::teacher_path(int64_t index) const {
  return teachers_ ? teachers_->path(entry(index), where(index)) : "";
}

TeacherFolder::TeacherFolder(const DatasetSpec& set, TeacherSpec spec)
    : spec_(std::move(spec)), folder_(set.root, spec_.folder, set.allow_outside) {}

std::string TeacherFolder::path(const ListEntry& entry, const std::string& where) const {
  const bool truth = spec_.naming == TeacherNaming::kTruth;
  check(!truth || !entry.depth.empty(), where, ": expected ground truth to use as the teacher, found None");
  const std::string name = truth ? entry.depth : map_name(entry.image, spec_.naming, spec_.extension);
  return at_line(where, [&] { return folder_.path({name, ""}); });
}

DepthMap Dataset::fitted(DepthMap map, const Sample& sample, const std::string& path) const {
  return fit(std::move(map), spec_, sample, path, true);
}

Sample Dataset::start(int64_t index) const {
  Sample sample;
  sample.index = index;
  sample.name = entry(index).image;
  sample.where = where(index);
  sample.focal = entry(index).focal;
  return sample;
}

void Dataset::load_image(Sample& sample) const {
  const std::string path = packed_ ? "" : image_path(sample.index);
  at_line(sample.where, [&] {
    if (packed_) return packed_->load(sample);
    Image8 image = read_image(path);
    sample.stored_size = image.size();
    const Rect rect = crop_rect(spec_.crop, image.size(), path);
    if (!(rect.size() == image.size())) image = crop(image, rect);
    sample.image = spec_.resize ? resize(image, *spec_.resize) : std::move(image);
  });
}

void Dataset::load_depth(Sample& sample) const {
  const std::string path = packed_ ? "" : depth_path(sample.index);
  if (path.empty()) return;
  at_line(sample.where, [&] { sample.depth = fit(read_stated(path, spec_.depth), spec_, sample, path, false); });
}

void Dataset::load_teacher(Sample& sample) const {
  const std::string path = packed_ ? "" : teacher_path(sample.index);
  if (path.empty()) return;
  at_line(sample.where,
          [&] { sample.teacher = fit(read_stated(path, spec_.teacher->format), spec_, sample, path, true); });
}

Sample Dataset::load_image(int64_t index) const {
  Sample sample = start(index);
  load_image(sample);
  return sample;
}

Sample Dataset::load(int64_t index) const {
  Sample sample = load_image(index);
  load_depth(sample);
  load_teacher(sample);
  return sample;
}

}  // namespace depthstill
