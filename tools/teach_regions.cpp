#include "tools/teach_regions.h"

#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>

#include "engine/data/region_teacher.h"
#include "engine/io/atomic_file.h"
#include "engine/io/checksum.h"
#include "engine/io/mapped_file.h"
#include "engine/io/npy.h"
#include "kernels/preprocess_region.h"
#include "tools/distill_recipe.h"
#include "tools/train_run.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr float kGreatestHalf = 65504.0f;

Sample load_image(const Dataset& data, int64_t index) {
  Sample sample = data.start(index);
  data.load_image(sample);
  return sample;
}

// The region as the network sees it: (1, size, size, 3).
Tensor input_of(const Sample& sample, const Region& region, int size, Device device, DType dtype) {
  RegionParams params;
  params.top = region.top;
  params.left = region.left;
  params.side = region.side;
  params.mirrored = region.mirrored;
  params.scaled = size;
  const ImageSize image = sample.image.size();
  const Frame frame{image.height, image.width, image.width};
  Tensor input = empty({1, size, size, 3}, dtype);
  visit(dtype, [&]<class T>() {
    cpu::preprocess_region<T>(stream_of(Device::kCpu), frame, sample.image.rgb.data(), params, size, input.data<T>());
  });
  return to_device(input, device);
}

// The folder says what its labels are of before there are any, and an earlier one must say the same.
void claim_folder(const std::string& folder, const RegionFolderSettings& settings) {
  make_folder(folder);
  if (is_region_folder(folder)) {
    static_cast<void>(region_folder_teacher(folder, settings, kRelativeInverseDepth));
    const std::string before = read_region_settings(folder).teacher;
    check(before == settings.teacher, folder, ": holds labels of ",
          before.empty() ? "another program" : "other weights", "; expected a folder of its own for each teacher");
    return;
  }
  write_region_settings(folder, settings);
}

}  // namespace

std::vector<RegionTask> region_tasks(const Recipe& recipe, const Dataset& data, size_t teacher) {
  check_map_names(data, ".npy");
  const LoaderOptions loading = loader_options(recipe);
  const int64_t steps = steps_per_epoch(data.size(), loading), batch = loading.batch_size;
  const std::vector<double> shares = region_shares(recipe);
  const std::string folder = teacher_folder(recipe, teacher);
  int64_t left = recipe.train.max_steps > 0 ? recipe.train.max_steps : loading.epochs * steps;
  std::vector<RegionTask> tasks;
  for (int64_t epoch = 0; epoch < loading.epochs && left > 0; ++epoch) {
    const std::vector<int64_t> order = epoch_order(data.size(), loading, epoch);
    for (int64_t step = 0; step < steps && left > 0; ++step, --left) {
      if (draw_teacher(shares, loading.seed, epoch, step) != static_cast<int64_t>(teacher)) continue;
      const int64_t end = std::min<int64_t>((step + 1) * batch, std::ssize(order));
      for (int64_t i = step * batch; i < end; ++i) {
        const int64_t index = order[static_cast<size_t>(i)];
        tasks.push_back({epoch, index, (fs::path(folder) / region_file(data.entry(index).image, epoch)).string()});
      }
    }
  }
  return tasks;
}

RegionTeachReport teach_regions(const Recipe& recipe, const Dataset& data, const DepthModel& teacher,
                                const std::string& weights, const RegionTeachOptions& options,
                                const std::function<void(int64_t, int64_t)>& progress) {
  RegionFolderSettings settings = region_settings(recipe, data, options.teacher);
  const MappedFile file(weights, "weights");
  settings.teacher = std::to_string(checksum64(file.bytes()));
  claim_folder(teacher_folder(recipe, options.teacher), settings);
  const RegionSpec& spec = recipe.regions.spec;
  const MapKind kind = teacher.options().head == Head::kRelative ? kRelativeInverseDepth : kMetricDepth;
  const std::string statement = concat_text(kStatementName, ": ", to_text({kind, 1}));
  const std::vector<RegionTask> tasks = region_tasks(recipe, data, options.teacher);
  const auto total = static_cast<int64_t>(tasks.size());
  RegionTeachReport report;
  for (const RegionTask& task : tasks) {
    progress(report.written + report.kept, total);
    if (!options.overwrite && fs::exists(task.path)) {
      ++report.kept;
      continue;
    }
    const Sample sample = load_image(data, task.index);
    const Region region = draw_region(spec, sample.image.size(), recipe.train.seed, task.epoch, task.index);
    const NoGrad no_grad;
    const Tensor input = input_of(sample, region, spec.patch, options.device, options.dtype);
    const Tensor map = to_device(depth_of(teacher.forward(input)), Device::kCpu);
    const std::vector<float> values = to_vector<float>(map);
    for (const float value : values) {
      check(std::isfinite(value), sample.where, ": ", sample.name, ": expected a finite map of ", teacher.name(),
            ", found ", value);
      check(std::abs(value) <= kGreatestHalf, task.path, ": expected values up to ", kGreatestHalf,
            ", which half precision holds, found ", value);
    }
    make_folder(fs::path(task.path).parent_path().string());
    const std::vector<int64_t> shape = {1, spec.patch, spec.patch};
    write_npy(task.path, shape, values, NpyType::kHalf, statement);
    ++report.written;
  }
  progress(total, total);
  return report;
}

void list_regions(const Recipe& recipe, const Dataset& data, size_t teacher, const std::string& path,
                  const std::function<void(int64_t, int64_t)>& progress) {
  claim_folder(teacher_folder(recipe, teacher), region_settings(recipe, data, teacher));
  const auto quoted = [](const std::string& text) {
    if (text.find_first_of(",\"\n") == std::string::npos) return text;
    std::string out = "\"";
    for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
    return out + '"';
  };
  std::map<int64_t, ImageSize> sizes;  // images are decoded once
  const std::vector<RegionTask> tasks = region_tasks(recipe, data, teacher);
  std::ostringstream lines;
  lines << "image,epoch,top,left,side,scaled,mirrored,file\n";
  int64_t done = 0;
  for (const RegionTask& task : tasks) {
    progress(done++, std::ssize(tasks));
    const auto found = sizes.find(task.index);
    const ImageSize size = found != sizes.end() ? found->second : load_image(data, task.index).image.size();
    sizes[task.index] = size;
    const Region region = draw_region(recipe.regions.spec, size, recipe.train.seed, task.epoch, task.index);
    lines << quoted(data.image_path(task.index)) << ',' << task.epoch << ',' << region.top << ',' << region.left << ','
          << region.side << ',' << recipe.regions.spec.patch << ',' << (region.mirrored ? 1 : 0) << ','
          << quoted(task.path) << '\n';
  }
  progress(done, done);
  write_file(path, lines.str());
}

}  // namespace depthstill
