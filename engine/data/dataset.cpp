#include "engine/data/dataset.h"

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <span>
#include <sstream>
#include <utility>

#include "engine/io/checksum.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

// Puts "LIST:LINE: " before what `f` has to say.
template <class F>
auto at_line(const std::string& where, const F& f) {
  try {
    return f();
  } catch (const Error& error) {
    fail(where, ": ", error.what());
  }
}

std::string join(const std::string& folder, const std::string& path) {
  return (std::filesystem::path(folder) / path).string();
}

std::string with_extension(const std::string& path, const std::string& extension) {
  return std::filesystem::path(path).replace_extension(extension).string();
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

}  // namespace

std::string flat_name(const std::string& image, const std::string& extension) {
  std::string name = with_extension(image, extension);
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

Dataset::Dataset(DatasetSpec spec) : spec_(std::move(spec)), list_path_(join(spec_.root, spec_.list)) {
  if (!spec_.packed.empty()) {
    packed_ = std::make_shared<const PackedSet>(spec_.packed);
    check_pack_settings(spec_.packed, packed_->manifest(), {pack_settings(spec_), list_checksum()});
    for (int64_t i = 0; i < packed_->size(); ++i) entries_.push_back(packed_->entry(i).line);
    skipped_ = packed_->manifest().skipped;
    return;
  }
  entries_ = read_list(list_path_, spec_.order);
  if (spec_.skip_without_depth) {
    skipped_ =
        static_cast<int64_t>(std::erase_if(entries_, [](const ListEntry& entry) { return entry.depth.empty(); }));
    check(!entries_.empty(), list_path_, ": expected lines with ground truth, found only None");
  }
}

std::string Dataset::list_checksum() const {
  if (!std::filesystem::exists(list_path_)) return "";
  const std::string text = read_text(list_path_);
  return std::to_string(checksum64(std::as_bytes(std::span(text))));
}

std::string Dataset::where(int64_t index) const { return concat_text(list_path_, ':', entry(index).line); }
std::string Dataset::image_path(int64_t index) const {
  return join(join(spec_.root, spec_.image_folder), entry(index).image);
}
std::string Dataset::depth_path(int64_t index) const {
  return entry(index).depth.empty() ? "" : join(join(spec_.root, spec_.depth_folder), entry(index).depth);
}

std::string Dataset::teacher_path(int64_t index) const {
  if (!spec_.teacher) return "";
  const ListEntry& line = entry(index);
  const std::string folder = join(spec_.root, spec_.teacher->folder);
  switch (spec_.teacher->naming) {
    case TeacherNaming::kFlat:
      return join(folder, flat_name(line.image, spec_.teacher->extension));
    case TeacherNaming::kBeside:
      return join(folder, with_extension(line.image, spec_.teacher->extension));
    case TeacherNaming::kTruth:
      check(!line.depth.empty(), where(index), ": expected ground truth to use as the teacher, found None");
      return join(folder, line.depth);
  }
  return "";
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
  at_line(sample.where, [&] {
    if (packed_) return packed_->load(sample);
    const std::string path = image_path(sample.index);
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

Sample Dataset::load(int64_t index) const {
  Sample sample = start(index);
  load_image(sample);
  load_depth(sample);
  load_teacher(sample);
  return sample;
}

}  // namespace depthstill
