#include "tools/teach_regions.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>

#include "engine/data/region_teacher.h"
#include "engine/io/atomic_file.h"
#include "engine/io/checksum.h"
#include "engine/io/csv_cell.h"
#include "engine/io/image_header.h"
#include "engine/io/mapped_file.h"
#include "engine/io/npy.h"
#include "engine/io/text_file.h"
#include "models/model_table.h"
#include "models/sky_rule.h"
#include "tools/distill_recipe.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr float kGreatestHalf = 65504.0f;

// The region as the network sees it, and its patches at their own size: (1 + patches, size, size, 3).
Tensor input_of(const Sample& sample, const Region& region, int size, Device device, DType dtype) {
  const auto patches = std::ssize(region.patches);
  const ImageSize image = sample.image.size();
  const Frame frame{image.height, image.width, image.width};
  const Tensor input = empty({1 + patches, size, size, 3}, dtype);
  auto* to = static_cast<char*>(input.raw());
  const auto write = [&](const RegionParams& params) {
    write_window(Device::kCpu, stream_of(Device::kCpu), frame, sample.image.rgb.data(), params, size, dtype, to);
    to += input.bytes() / static_cast<size_t>(1 + patches);
  };
  write(region_params(region, size));
  for (const Region::Patch& patch : region.patches) write(patch_params(region, patch));
  return to_device(input, device);
}

// Pixels of the stored image that data.crop leaves.
Rect frame_of(const Dataset& data, int64_t index, const std::string& path) {
  return at_line(data.where(index), [&] {
    const std::vector<uint8_t> file = read_bytes(path);
    return crop_rect(data.spec().crop, check_image_file(file, path).size, path);
  });
}

// The folder says what its labels are of before there are any, and an earlier one must say the same.
void claim_folder(const std::string& folder, const RegionFolderSettings& settings) {
  make_folder(folder);
  if (is_region_folder(folder)) {
    const RegionFolderSettings before = check_region_folder(folder, settings);
    check(before.teacher == settings.teacher, folder, ": holds labels of ",
          before.teacher.empty() ? "another program" : "other weights or of another precision",
          "; expected a folder of its own for each teacher");
    if (before.epochs >= settings.epochs) return;
  } else {
    check(fs::is_empty(folder), folder, ": expected labels of regions or an empty folder, found something else");
  }
  write_region_settings(folder, settings);
}

// A map is known throughout, or not at all: where there is nothing but sky.
void check_known(const DepthModel& teacher, const std::vector<float>& labels, size_t plane) {
  for (size_t at = 0; at < labels.size(); at += plane) {
    const auto first = labels.begin() + static_cast<std::ptrdiff_t>(at);
    const auto unknown = std::count_if(first, first + static_cast<std::ptrdiff_t>(plane),
                                       [](float value) { return !std::isfinite(value); });
    const bool nothing_but_sky =
        is_exponential(teacher.options().head) && static_cast<size_t>(unknown) == plane && std::isnan(*first);
    check(unknown == 0 || nothing_but_sky, "expected a finite map of ", teacher.name(), ", found ", unknown, " of ",
          plane, " values that are not");
  }
}

}  // namespace

RegionTeachReport teach_regions(const Recipe& recipe, const Dataset& data, const DepthModel& teacher,
                                const std::string& weights, const RegionTeachOptions& options,
                                const std::function<void(int64_t, int64_t)>& progress) {
  const RegionSpec spec = region_spec(recipe);
  const int multiple = input_rule(teacher.name()).multiple;
  check(spec.patch % multiple == 0, "distill.patch: expected a multiple of ", multiple, " for the teacher ",
        teacher.name(), ", found ", spec.patch);
  const std::vector<RegionTask> tasks = region_tasks(recipe, data, options.teacher);
  RegionFolderSettings settings = region_settings(recipe, data, options.teacher);
  const MappedFile file(weights, "weights");
  settings.teacher = concat_text(checksum64(file.bytes()), ' ', name_of(options.dtype));
  claim_folder(teacher_folder(recipe, options.teacher), settings);
  const std::string statement = named_text({label_kind(teacher.options().head), 1});
  const auto total = static_cast<int64_t>(tasks.size());
  RegionTeachReport report;
  for (const RegionTask& task : tasks) {
    progress(report.written + report.kept, total);
    if (!options.overwrite && fs::exists(task.path)) {
      ++report.kept;
      continue;
    }
    const Sample sample = data.load_image(task.index);
    const Region region = draw_region(spec, sample.image.size(), recipe.train.seed, task.epoch, task.index);
    const Tensor input = input_of(sample, region, spec.patch, options.device, options.dtype);
    const std::vector<float> values = at_line(concat_text(sample.where, ": ", sample.name), [&] {
      std::vector<float> labels = labels_of(teacher, input);
      check_known(teacher, labels, static_cast<size_t>(spec.patch) * static_cast<size_t>(spec.patch));
      return labels;
    });
    for (const float value : values) {
      check(!(std::abs(value) > kGreatestHalf), task.path, ": expected values up to ", kGreatestHalf,
            ", which half precision holds, found ", value);
    }
    make_folder(fs::path(task.path).parent_path().string());
    const std::vector<int64_t> shape = {1 + spec.patches, spec.patch, spec.patch};
    write_npy(task.path, shape, values, NpyType::kHalf, statement);
    ++report.written;
  }
  progress(total, total);
  return report;
}

void list_regions(const Recipe& recipe, const Dataset& data, size_t teacher, const std::string& path,
                  const std::function<void(int64_t, int64_t)>& progress) {
  const std::vector<RegionTask> tasks = region_tasks(recipe, data, teacher);
  claim_folder(teacher_folder(recipe, teacher), region_settings(recipe, data, teacher));
  std::map<int64_t, Rect> frames;  // what is learnt from of each image
  std::ostringstream lines;
  lines << "image,epoch,top,left,side,scaled,mirrored,virtual,patches,file\n";
  const RegionSpec spec = region_spec(recipe);
  int64_t done = 0;
  for (const RegionTask& task : tasks) {
    progress(done++, std::ssize(tasks));
    const std::string image = data.image_path(task.index);
    auto frame = frames.find(task.index);
    if (frame == frames.end()) frame = frames.emplace(task.index, frame_of(data, task.index, image)).first;
    const Rect& rect = frame->second;
    const Region region = draw_region(spec, rect.size(), recipe.train.seed, task.epoch, task.index);
    std::string patches;
    for (const Region::Patch& patch : region.patches) {
      patches += concat_text(patches.empty() ? "" : " ", patch.row, ':', patch.column);
    }
    lines << csv_cell(image) << ',' << task.epoch << ',' << rect.top + region.top << ',' << rect.left + region.left
          << ',' << region.side << ',' << spec.patch << ',' << (region.mirrored ? 1 : 0) << ',' << region.scaled << ','
          << patches << ',' << csv_cell(task.path) << '\n';
  }
  progress(done, done);
  write_file(path, lines.str());
}

}  // namespace depthstill
